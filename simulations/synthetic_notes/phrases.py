"""How anything is said: shared symptoms in their paraphrases, stock sentences, abbreviations and usual misspellings.

Phrases are templates. `{fever}` stands for one of the phrases of that name, here or, for `{told}` and `{past name}`, of
the patient's problems (see `scribe.py`); `<3.1..4.9>` stands for a number in that range, with as many decimals.
"""

# Symptoms that specialties share, so that no one of them gives the specialty away.
SYMPTOMS = """
chest pain: chest pain; chest tightness; CP; retrosternal discomfort; an ache across the chest
breathless: shortness of breath; SOB; SOBOE; dyspnoea; breathlessness; difficulty catching breath
swollen legs: leg swelling; ankle oedema; swollen legs; SOA; puffy ankles; peripheral oedema
tired: fatigue; tiredness; lethargy; no energy; TATT; exhaustion
palpitations: palpitations; a racing heart; heart pounding; awareness of heartbeat; palps
dizzy: dizziness; light-headedness; presyncope; feeling faint; giddiness on standing
collapse: collapse; syncope; a blackout; TLOC; passing out; a faint
fever: fever; pyrexia; high temperature; rigors; feeling hot and cold; a temperature at home
weight loss: weight loss; loose clothes; loss of <4..14> kg; LOW; unintended weight loss
cough: cough; productive cough; coughing; a cough for <2..8> weeks; chesty cough
wheeze: wheeze; noisy breathing; a whistling chest; wheeziness
abdominal pain: abdominal pain; tummy pain; abdo pain; belly ache; epigastric pain; stomach cramps
vomiting: vomiting; D&V; being sick; emesis; vomiting x<2..8>; not keeping fluids down
diarrhoea: diarrhoea; loose stools; BO x<4..12>/day; watery motions; the runs
black stools: black stools; melaena; tarry motions; PR bleeding; dark sticky stool
jaundice: jaundice; yellow skin; icterus; yellowing of the eyes
swollen belly: abdominal distension; a swollen belly; bloating; tight abdomen; increasing girth
confusion: confusion; delirium; muddled speech; disorientation; not being {his} usual self
headache: headache; a sore head; cephalalgia; HA; head pain
weakness: weakness; loss of power; heaviness; reduced power; giving way
numbness: numbness; pins and needles; paraesthesia; tingling; altered sensation
slurred speech: slurred speech; dysarthria; speech disturbance; garbled words
fits: a seizure; fits; shaking with loss of awareness; a convulsion
falls: a fall; recurrent falls; being off legs; an unwitnessed fall; tripping over
low urine: poor urine output; passing little water; oliguria; low UO; reduced urine
blood in urine: haematuria; blood in the urine; cola coloured urine; red urine
burning urine: dysuria; burning on passing water; stinging urine; urinary frequency
flank pain: loin pain; flank pain; pain in the side; costovertebral angle pain
itch: itching; pruritus; itchy skin; scratching at night
joint pain: joint pain; arthralgia; aching joints; pain on moving
swollen joint: swelling of the joint; a hot joint; effusion; bruising and swelling
back pain: back pain; backache; LBP; lumbar pain; pain between the shoulder blades
thirst: thirst; polyuria; drinking and passing water all day; dry mouth; polydipsia
low mood: low mood; feeling flat; tearfulness; poor sleep; loss of interest
anxious: anxiety; feeling on edge; irritability; restlessness
"""

# Sentences of any note. {told} is of the problem in hand, {also ...} of another that is active, {past ...} of an old
# one, and {no ...} of one that the patient has not got.
SENTENCES = """
no: no; denies; nil; without; negative for; not troubled by
denial: {No} {no told} or {no told}; {No told} and {no told} denied; {No} {no told}, {no told} or {no sign}; {No} {no
  told}; There has been no {no told} and no {no told}
background: {past name} and {past name}, {chronic}; {chronic}, {chronic}, {past name}; Known {past name} since
  <2004..2018>. {Chronic}; {past name}, {chronic}. {Past done} in <2009..2018>; Hx {past name}, {past name}, {chronic}
chronic: hypertension; depression; gout; cataracts; hearing loss; eczema; previous appendicectomy; hernia repair;
  hypercholesterolaemia; migraine as a teenager; varicose veins; tonsillectomy; shingles; hay fever; vertigo; carpal
  tunnel; psoriasis; glaucoma; raised BMI of <31..38>; osteopenia; IBS; rosacea
social: lives alone in a flat on floor <2..9>; lives with {his} partner; ex-smoker of <5..40> pack years; never
  smoked; carers <2..4> times a day; walks with a stick; independent; retired bus driver; works in a bakery; {units}
  per week; drives; manages <4..16> stairs; sleeps in the lounge; looks after a grandchild; keeps an allotment;
  retired teacher
units: <2..40> units of alcohol; no alcohol; a bottle of wine; social drinking only
drugs: {home}, {past home}, {any drug}; {past home} and {home}; {past home}, {past home}, {any drug}; {any drug},
  {home}, {past home}, {also home}; {past home}, {any drug}, {any drug}
any drug: paracetamol 1 g as needed; omeprazole 20 mg; amlodipine 5 mg; atorvastatin 20 mg; sertraline 50 mg; senna
  7.5 mg; vitamin D 800 units; mirtazapine 15 mg; cetirizine 10 mg; ramipril 2.5 mg; metformin 500 mg; salbutamol as
  needed; codeine 30 mg; prednisolone 5 mg; folic acid 5 mg; lansoprazole 15 mg; furosemide 20 mg; aspirin 75 mg;
  laxido one sachet
allergy: NKDA; penicillin (rash); no known drug allergies; trimethoprim (swelling); latex; codeine causes nausea; nil
  known
obs: BP <98..172>/<54..96> mmHg, HR <54..118> bpm, RR <12..26>/min, temp <35.8..38.6> C, SpO2 <90..99>%; temp
  <35.8..38.6> C, pulse <54..118> bpm, blood pressure <98..172>/<54..96> mmHg, sats <90..99>% on air; NEWS <0..7>, BP
  <98..172>/<54..96> mmHg, pulse <54..118> bpm, sats <90..99>% on <1..4> L; Obs stable, NEWS <0..3>; Afebrile, HR
  <60..104> bpm, BP <104..158>/<58..90> mmHg, RR <12..22>/min
normal sign: abdomen soft and non-tender; chest clear; heart sounds normal; GCS 15/15; moving all four limbs; calves
  soft; pupils equal; no rash; well perfused; mucous membranes moist; bowel sounds present; no focal deficit; alert
examined: {Sign} and {normal sign}. No {no sign}; {Sign}, {also sign}. {Normal sign}; {Normal sign}, {normal sign}.
  {Sign}; {Also sign} but {normal sign}. {Sign}. No {no sign} or {no sign}; {Sign}. {Normal sign}. {Normal sign}, no
  {no sign}
bloods: Hb <88..158> g/L; WCC <4.2..14.8>; platelets <120..420>; sodium <131..145> mmol/L; potassium <3.3..5.2>
  mmol/L; creatinine <52..168> umol/L; CRP <1..96> mg/L; glucose <4.4..12.6> mmol/L; ALT <12..88> U/L; albumin
  <26..44> g/L; urea <3.4..13.8> mmol/L; INR <0.9..1.4>; magnesium <0.66..1.02> mmol/L; lactate <0.8..2.4> mmol/L;
  bilirubin <4..24> umol/L
tested: {Bloods}, {bloods}, {test}; {Test}, {bloods}, {also test}; {Bloods}, {bloods}, {bloods}. {Test}; {Also test}.
  {Bloods}, {bloods}; {Bloods}, {test}, {bloods}. {Scan}
arrival: {age} year old {person} brought in by ambulance with {told} and {told}; Presents with {told} for <2..9> days;
  Self-presented with {told}, also {also told}; Sent in by the GP with {told} and {also told}; {Told} since yesterday,
  worse this morning, on a background of {past name}; {Also told} and {told} for <1..3> weeks; Found by {his}
  neighbour with {told}; {Person} of {age} with known {past name}, now {told} and {also told}
story: {He} describes {told} and some {also told}; Getting worse over <3..12> hours; {He} has also noticed {told};
  Last well <2..10> days ago; {Told} came first, then {told}; Similar episode in <2012..2018>; Took paracetamol with
  little effect; Family noticed {told}; Has had {also told} on and off for months, put down to {past name}; Appetite
  poor
impression: Likely {name}; {Name}, with {also name} alongside; ?{name} ?{no name}; Working diagnosis {name},
  differential {no name}; {Name} on a background of {past name}; Picture fits {name} rather than {no name}; {Also
  name} and {name}
job: {care}; {care}; {care}; {also care}; repeat bloods in the morning; chase results; VTE prophylaxis; monitor NEWS;
  senior review; discuss with family; {also care}; hold {past home}; encourage oral fluids; treatment escalation form;
  start {care}; book {done}; request old notes; physio and OT; continue {also care}; aim home <1..4> days
signature: Seen by F<1..2>; Reviewed by consultant; SHO, bleep <1000..8999>; Signed electronically; Discussed with
  registrar on call; Staff nurse, band <5..7>; Dictated not signed; Entered in retrospect at <12..23>:<10..59>; Typed
  by secretary
"""

# What some write in full and others in short.
ABBREVIATIONS = {
    "patient": "pt",
    "history": "hx",
    "year old": "yo",
    "twice daily": "BD",
    "as needed": "PRN",
    "left": "L",
    "right": "R",
    "bilateral": "bilat",
    "with": "w/",
    "without": "w/o",
    "before": "pre",
    "blood pressure": "BP",
    "potassium": "K",
    "sodium": "Na",
    "haemoglobin": "Hb",
    "creatinine": "Cr",
    "paracetamol": "para",
    "temperature": "temp",
    "abdomen": "abdo",
    "antibiotics": "abx",
    "treatment": "Rx",
    "fracture": "#",
    "review": "r/v",
    "reviewed": "r/v'd",
    "nil by mouth": "NBM",
    "operation": "op",
    "admission": "adm",
    "urine output": "UO",
    "chest X-ray": "CXR",
    "hours": "hrs",
    "weeks": "wks",
    "months": "mths",
}
MISSPELLINGS = {
    "abdominal": "abdominial",
    "anaesthetic": "anesthetic",
    "breathing": "breating",
    "catheter": "cathetar",
    "consultant": "consultent",
    "definite": "definate",
    "diarrhoea": "diarrohea",
    "effusion": "efusion",
    "haemorrhage": "haemorrage",
    "hypertension": "hypertention",
    "infection": "infecton",
    "medication": "medicaton",
    "oedema": "odema",
    "palpitations": "palpatations",
    "pneumonia": "pnuemonia",
    "received": "recieved",
    "separate": "seperate",
    "swelling": "sweling",
    "vomiting": "vomitting",
    "weakness": "weaknes",
}


def phrasebook(table: str) -> dict[str, tuple[str, ...]]:
    """Read a table of `name: phrase; phrase` lines, in which an indented line goes on from the one before."""
    lines = table.strip().replace("\n  ", " ").splitlines()
    return {name: tuple(phrases.split("; ")) for name, _, phrases in (line.partition(": ") for line in lines)}
