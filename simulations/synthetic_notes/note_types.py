"""The types of note: which sections each has, in the order of a patient's stay, and the sentences of its own.

A section is its key in `HEADINGS`, how often it is written, and a template as in `phrases.py`, in which ` * ` parts the
items of a list.
"""

from dataclasses import dataclass

from .phrases import phrasebook


@dataclass(frozen=True)
class NoteType:
    """How one type of note is written: how often, on which days of a stay, under which title, and if but once."""

    share: float
    days: tuple[int, int]
    title: str
    sections: tuple[tuple[str, float, str], ...]
    once: bool = False


NOTE_TYPES = {
    "emergency": NoteType(
        3,
        (0, 0),
        "attendance title",
        (
            ("complaint", 1, "{Arrival}. {Story}."),
            ("story", 0.9, "{Story}. {Story}. {Denial}. {Triage}."),
            ("past", 0.9, "{Background}."),
            ("drugs", 0.6, "{Drugs}."),
            ("allergy", 0.5, "{Allergy}."),
            ("social", 0.4, "{Social}, {social}."),
            ("exam", 1, "{Obs}. {Examined}. {Examined}."),
            ("tests", 0.9, "{Tested}. {Tested}."),
            ("impression", 0.9, "{Impression}."),
            ("plan", 1, "{First step} * {Job} * {Usual} * {First step} * {Job}"),
        ),
        once=True,
    ),
    "operation": NoteType(
        2,
        (0, 6),
        "theatre title",
        (
            ("procedure", 1, "{Done}."),
            ("complaint", 0.9, "{Theatre reason}. {Story}. {Denial}."),
            ("past", 0.5, "{Background}."),
            ("anaesthetic", 0.8, "{Anaesthetic}."),
            ("findings", 0.9, "{Theatre finding}. {Theatre finding}."),
            ("course", 1, "{Theatre start}. {Theatre step}. {Theatre step}. {Theatre step}. {Theatre end}. {Loss}."),
            ("today", 0.5, "{Theatre step}. {Today}."),
            ("impression", 0.6, "{Impression}. {Progress}."),
            ("plan", 1, "{Theatre order} * {Usual} * {Theatre order} * {Job} * {Usual} * {Theatre order} * {Job}"),
        ),
    ),
    "radiology": NoteType(
        3,
        (0, 9),
        "imaging title",
        (
            ("complaint", 1, "{Request}. {Story}. {Denial}."),
            ("past", 0.7, "{Background}."),
            ("tests", 0.6, "{Tested}."),
            ("technique", 0.7, "{Technique}. {Technique}."),
            ("findings", 1, "{Film}. {Film}. {Film}. {Film}. {Film}. {Film normal}. {Film normal}. {Film normal}."),
            ("impression", 0.9, "{Conclusion}. {Conclusion}."),
            ("plan", 0.8, "{Usual} * {Usual}"),
        ),
    ),
    "nursing": NoteType(
        5,
        (0, 11),
        "shift title",
        (
            ("situation", 0.8, "{Problem list}. {Background}. {Social}."),
            ("today", 1, "{Handover}. {Shift}. {Shift}. {Usual}. {Shift}. {Shift}. {Denial}."),
            ("exam", 0.8, "{Obs}. {Skin}."),
            ("course", 1, "{Nursed}. {Nursed}. {Usual}. {Nursed}. {Shift}. {Nursed}."),
            ("family", 0.6, "{Family}. {Family}. {Social}."),
            ("plan", 0.8, "{Nursing step} * {Usual} * {Nursing step} * {Nursing step} * {Nursing step}"),
        ),
    ),
    "progress": NoteType(
        6,
        (1, 11),
        "round title",
        (
            ("situation", 0.9, "{Problem list}. {Background}."),
            ("today", 1, "{Today}. {Today}. {Today}. {Today}. {Denial}."),
            ("exam", 0.9, "{Obs}. {Examined}. {Examined}."),
            ("tests", 0.8, "{Tested}. {Tested}."),
            ("drugs", 0.4, "{Drugs}."),
            ("impression", 0.8, "{Progress}. {Progress}."),
            ("plan", 1, "{Job} * {Usual} * {Job} * {Usual} * {Job}"),
        ),
    ),
    "incident report": NoteType(
        2,
        (1, 10),
        "event title",
        (
            ("today", 1, "{Event}. {Event detail}. {Event detail}. {Event detail}. {Event detail}."),
            ("situation", 1, "{Event patient}. {Event patient}. {Story}. {Usual}. {Background}."),
            ("exam", 0.6, "{Obs}. {Examined}."),
            ("course", 1, "{Event action}. {Event action}. {Usual}. {Event action}. {Event action}."),
            ("impression", 0.8, "{Harm}. {Progress}."),
            ("follow", 0.9, "{Learning}. {Learning}. {Usual}. {Learning}."),
        ),
    ),
    "discharge summary": NoteType(
        3,
        (12, 14),
        "home title",
        (
            ("diagnosis", 0.9, "{Name} * {Also name} * {Past name}"),
            ("complaint", 0.9, "{Arrival}. {Story}. {Denial}."),
            ("past", 0.7, "{Background}."),
            ("course", 1, "{Course start}. {Course}. {Course}. {Usual}. {Course}. {Course}. {Course end}."),
            ("procedure", 0.4, "{Done}."),
            ("tests", 0.7, "{Tested}. {Tested}."),
            ("drugs", 0.9, "{Home} * {Past home} * {Any drug} * {Past home}"),
            ("social", 0.4, "{Social}, {social}."),
            ("follow", 1, "{Follow}. {Follow}. {Usual}. {Follow}. {Usual}. {Follow}."),
        ),
        once=True,
    ),
    "letter": NoteType(
        3,
        (20, 120),
        "clinic title",
        (
            ("greeting", 0.8, "{Greeting}"),
            ("diagnosis", 0.6, "{Name} * {Past name} * {Chronic}"),
            ("story", 1, "{Thanks}. {Clinic}. {Clinic}. {Story}. {Usual}. {Clinic}. {Clinic}. {Denial}."),
            ("past", 0.5, "{Background}."),
            ("exam", 0.7, "{Examined}. {Examined}. {Obs}."),
            ("tests", 0.6, "{Tested}. {Tested}."),
            ("drugs", 0.5, "{Drugs}."),
            ("plan", 1, "{Clinic plan}. {Usual}. {Clinic plan}. {Clinic plan}. {Usual}. {Farewell}."),
        ),
    ),
}

# All the ways in which a section is written, in any type of note.
SECTIONS = {
    key: tuple(t for kind in NOTE_TYPES.values() for section, _, t in kind.sections if section == key)
    for key in {section for kind in NOTE_TYPES.values() for section, _, _ in kind.sections}
}

# The last heading of each is the short one.
HEADINGS = phrasebook("""
complaint: presenting complaint; reason for admission; complaint; PC
story: history; history of presenting complaint; background to this visit; HPC
past: past medical history; medical background; previous problems; PMH
drugs: medications; current medicines; drug history; DHx
allergy: allergies; allergies and reactions; sensitivities; All
social: social history; home circumstances; social; SHx
exam: examination; findings on examination; observations and examination; O/E
tests: results; investigations; tests; Ix
impression: impression; assessment; diagnosis; Imp
plan: plan; management plan; actions; P
procedure: procedure; procedure performed; title; Proc
anaesthetic: anaesthetic; anaesthesia; type of anaesthetic; GA/LA
findings: findings; what was seen; report; F
technique: technique; views; protocol; Tech
family: communication; family; contact; Fam
situation: situation; background; current problems; B/G
today: today; subjective; interval history; S
diagnosis: diagnoses; problem list; active problems; Dx
course: hospital course; clinical summary; progress; Course
follow: follow up; arrangements; next steps; FU
greeting: to; recipient; re; Re
""")

NOTE_SENTENCES = """
attendance title: ED record; Attendance note; Front door assessment; Clerking
theatre title: Theatre record; Procedure note; Op note; Surgical record
imaging title: Imaging report; Scan report; Report; Verified report
shift title: Care record; Evaluation; Shift note; Continuation sheet
round title: Ward round; Review; WR; Continuation sheet
event title: Event form; Safety record; Datix; Report
home title: Summary of stay; Discharge; Summary; Going home letter
clinic title: Clinic letter; Outpatient review; Correspondence; Summary
triage: Triage category <2..4>, seen at <10..23>:<10..59>; Arrived on foot; Ambulance gave <2..8> mg morphine; Waited
  <2..9> hours; Fast track from triage; Handed over by crew; Walked in from the car park
first step: IV access and bloods; admit under the medical take; refer for {no done} if worse; analgesia; ECG;
  cultures; bed request made; observe <4..12> hours; chest X-ray; {care}; {care}; {also care}; safety net advice;
  urine dip; {care}
theatre reason: {Name} with {told}; {Scan}, {told}; {Name} not settling on {care}; {Told} despite {care}; {Name};
  Planned after MDT for {name}; Worsening {told} in a {person} with {past name}
anaesthetic: General, size <7..8> tube; Spinal with <2..3> ml heavy bupivacaine; Local lidocaine 1% <5..20> ml;
  Sedation midazolam <2..5> mg and fentanyl <50..100> micrograms; General with block; LMA, uneventful; Topical and
  sedation
theatre finding: {Scan}; {Scan}, no {no scan}; As imaging, {scan}; Unremarkable anatomy, {scan}; No {no scan}. {Scan}
theatre start: Consent and WHO checks complete; Supine, prepped and draped; Lateral position, pressure areas padded;
  Time out done, antibiotics at induction; Team brief, site marked; Lateral, skin prepared with chlorhexidine
theatre step: Haemostasis secured; Guided by ultrasound; Specimen sent to histology; Washed out with <1..6> L saline;
  Position confirmed on screening; <2..4> passes needed; Access difficult because of habitus; Two operators; Tissue
  friable; Guidewire seen; {Sign} noted once asleep; Contrast <40..180> ml; Adhesions divided; Sample for culture;
  Careful handling
theatre end: Closed in layers; Dressing applied; Swab and needle counts correct; To recovery, stable; Skin clips;
  Steri-strips
loss: EBL <10..650> ml, counts correct x2; Minimal; <50..400> ml, no transfusion; Counts correct; Nil significant
theatre order: routine post procedure obs; eat and drink when awake; bed rest <2..6> hours; drain out at <24..72>
  hours; antibiotics for <1..3> doses; wound review day <2..10>; clips out at <10..14> days; restart {past home};
  bloods at 6 pm; discharge when safe; {care}; VTE prophylaxis from tonight; continue {care}; analgesia as charted;
  sips only tonight
request: {Told} and {also told}, ?{name} ?{no name}; {Name}, new {told}; {Sign}. {Test}. ?{no name}; Known {past
  name}, now {told}; {Told}, previous {past name}. Exclude {no name}; Follow up of {name}; {Also told} and {told};
  Post {done}
technique: Single AP projection; Portable film; Axial slices at <1..5> mm; Contrast <60..100> ml; Multiplanar
  sequences; Comparison with <2014..2019>; No prior imaging; Limited by movement; Arterial and venous phases; Grey
  scale and Doppler
film: {Scan}; {Scan}; {Scan}; Background changes of {also scan}; No {no scan}; No {no scan} or {no scan}; No evidence
  of {no scan}; {Scan}, unchanged from before; Incidental {also scan}; No convincing {no scan}
film normal: No bony lesion; Lines in position; Heart size normal; Visible lung bases clear; Solid organs
  unremarkable; No free gas; Soft tissues normal; Incidental simple cyst of <8..32> mm; Degenerative change; Vessels
  patent; No adenopathy
conclusion: {Scan}; {Scan}, in keeping with {name}; {Scan}. No {no scan}; Appearances suggest {name}; {Also scan} as
  before. {Scan}; Clinical correlation advised. {Scan}; No {no scan}. {Scan}; Findings phoned to the ward, {scan}
handover: {Age} year old with {name}, also {past name}; Care taken over at <19..21>:<10..45>; Received from handover,
  {name}; Admitted with {told}; Patient nursed in bay <1..6>; Transferred from bay <1..6> at {his} request; Resting on
  arrival
shift: Slept <3..8> hours; Reports {told}; Pain score <0..8>/10; Tolerated <40..300> ml of supplement; Settled; Bowels
  open type <2..6>; Complained of {also told}; Appears comfortable; Passed <180..900> ml of urine; Buzzer in reach;
  Anxious about going home; Ate half of {his} lunch; Assisted with wash and dress; Seen by the doctor; Awake since
  <2..5> am; No {no told}
nursed: {Care} as charted; {Care} continued; {Also care} given; Explained {care}; {Care}, tolerated well; Declined
  {past home}; {Sign} persists, doctor aware; Cannula flushed; Repositioned <2..4> hourly; {Care} commenced at
  <10..22>:<10..50>; Prepared for {done}; Omitted {past home} as unavailable; {Also care}, no concerns; Back from
  {done}, obs stable
skin: Waterlow <8..24>, intact; Heels red but blanching; Cannula site clean, VIP <0..1>; Sacrum intact; Skin tear
  <1..4> cm; Moisture lesion, barrier cream; Dressing dry; Bruise to the forearm; Mattress checked
family: Daughter phoned for an update; Son visiting, happy with plan; Wife asked to see the team; No visitors;
  Interpreter booked; Partner worried about {told}; Sister brought {home} from home; Niece to bring clothes
nursing step: {care}; obs <2..6> hourly; {also care}; assist with meals; stool chart; fluid balance; {care}; bloods in
  the morning; encourage to sit out; pain team if no better; mouth care; handover to night staff; bed rails assessed
problem list: {Name}; {Name}, {also name}; {Also name}, {name}. Background {past name}; Admitted with {told}; {Name},
  post {done}; {Told}, ?cause. Known {past name}; {Age} year old with {past name}, {name}
today: Feels better; Still has {told}; {Told} settling; New {also told} overnight; Slept poorly; Eating and drinking;
  {Care} started yesterday; Less {told} since {care}; Bothered by {also told}; Up to the chair; Asking about home;
  {Told} at <2..6> am; No new concerns; Seen with nurse in charge; Tolerating {care}; {Also care} stopped
progress: Improving {name}; {Name}, slow response to {care}; Medically fit soon; {Also name} now the main limit;
  {Name} and {also name} both better; Not yet at baseline; Deteriorating, {test}; Stable; {Name} ?{no name}; Awaiting
  {done}
event: Found on the floor beside the bed at <10..23>:<10..59>; Dose of {past home} given twice; {Care} omitted for
  <6..24> hours; Slipped in the bathroom; Wrong wristband noticed before {done}; Category <2..3> pressure damage to
  the heel; Sample labelled with another name; Delay of <3..14> hours to {done}; {Also care} given to the wrong
  patient; Left the ward unseen; Pump set at <10..90> ml/h in error; Allergy not checked before antibiotics; Equipment
  for {done} not available
event detail: Unwitnessed; No head injury seen; Said {he} felt {told}; Witnessed by another patient; Floor dry, shoes
  on; Two staff on the ward; Staffing one short; Was on {care}; Was waiting for {done}; Noticed at handover; Chart had
  been rewritten; Lights were low; Also on {also care}; {He} was reaching for a drink; Bed at lowest height; Alarm had
  been silenced
event patient: In hospital with {name}; {Person} of {age} with {past name} and {name}; Day <2..20> of {name}; Known
  {past name}, under treatment for {told}; Falls risk, {past name}, {name}; {Sign} before the event; {Also name},
  {name}, needs help of two
event action: Doctor informed; Head chart not needed; Hoisted back to bed; {Obs}; Family told; {Care} restarted; Nurse
  in charge told; Apology given; {Test} afterwards; Pharmacist contacted; Monitored for <2..8> hours; Checked for
  injury, {normal sign}; Site lead aware; {Care} continued unchanged; Bloods repeated, {bloods}; Statement written;
  Equipment taken out of use
harm: No harm; Low harm, extra observation; Near miss; Moderate, longer stay by <1..4> days; Skin tear <1..5> cm; None
  seen
learning: Risk assessment to be redone; Staff reminded of two person check; Agency staff unfamiliar; Form sent to the
  safety team; Handover sheet unclear; Duty of candour met; Care plan for {name} updated; Bay out of sight; Poor
  lighting; Training given; Similar event last month; Audit planned; Transcribing from the old chart; Busy shift;
  {Also care} prescribed in two places
course start: {He} was admitted with {told} and {told}; Treated as {name}; Initial treatment was {care}; Presented
  unwell, {obs}; Admission was for {name}; This {age} year old came in with {also told} and {told}
course: {Scan} on imaging; {Test} at worst; {Care} was given with good effect; Course complicated by {also name},
  managed with {also care}; {Sign} resolved slowly; No {no scan} was found; {No name} was excluded; {Also test} noted,
  for recheck; Treated with {care} and {care}; Underwent {done}; {Past home} was held and restarted; {Also name}
  needed {also care}
course end: Mobile with a frame on leaving; Back to baseline; Medically fit and keen for home; Discharged to a
  community bed; Home with care twice a day; {Told} had settled by then; Went home against advice; Function near usual
follow: Clinic in <2..12> weeks; GP to repeat bloods in <1..4> weeks; GP to check {test}; Imaging in <6..12> weeks;
  Return if {told}; Continue {care}; {Done} as an outpatient; Sick note for <2..6> weeks; Community nurse for
  dressing; Stop {past home}; No driving for <1..4> weeks; Please review {past home}; Seek help if {no told}; Advice
  line given; GP to titrate {home}
greeting: Dear Doctor; Dear colleague; To the GP; Dear Dr, copy to patient; Dear patient
thanks: Thank you for referring this {age} year old {person}; I reviewed this {person} by telephone; Seen in clinic
  with {his} partner; I was pleased to see this {age} year old; Diagnosis is {name}; Many thanks for asking us to see
  this {person} with {told}
clinic: {He} still gets {told}; {Told} is better on {home}; {He} has had {done} since; {Also told} is the main worry;
  {Scan} on the last scan; {Test} last month; {Past name} is well controlled; {He} remains on {home}; Side effects of
  {home} are mild; {He} {social}; Weight <52..112> kg; {He} stopped {past home}; We talked through {done}; {Also name}
  is being looked after elsewhere
clinic plan: I would be grateful if you could start {home}; We will see {him} in <3..12> months; Please check bloods
  in <2..8> weeks; I have listed {him} for {done}; I have arranged imaging; No change to treatment; Please stop {past
  home}; I have asked for {test} to be repeated; Increase {home}; I have written about {also name}; Continue {home}
farewell: Yours sincerely; Kind regards; With best wishes; Yours faithfully
"""
