"""What is wrong with the patients: the clinical problems of each specialty, and the words they are written in.

The first block of a table gives what the team usually does for any of its patients. Each block after it is one problem:
its first line gives its names (formal, abbreviated and lay); the lines below give noun phrases, so that each fits
"presents with ...", "started on ..." and "no ..." alike:

- `told`: what the patient says,
- `sign`: what is seen at the bedside,
- `test`: laboratory and bedside tests,
- `scan`: what imaging shows,
- `care`: what is given or watched in hospital,
- `done`: operations and procedures,
- `home`: long-term medicines,
- `sex`: the only sex that has it, where there is one.

`{...}` and `<low..high>` are expanded as in `phrases.py`. No phrase holds the name of a specialty, of its department or
of its doctors: a test keeps it so.
"""

from dataclasses import dataclass

from .phrases import phrasebook

CARDIOLOGY = """
usual: repeat 12 lead; rhythm strip kept in the notes; TTE booked; ACE inhibitor dose up; potassium to be kept above
  4.0; daily weights before breakfast; {side} ventricular function to be looked at; cath lab list; pacing check; beta
  blocker as pulse allows; rhythm watched for <24..48> hours; ECG unchanged; lipids to target; angiogram images sent
  over; statin at night; GTN at the bedside; another ECG if pain; tracing filed; echocardiogram asked for; perindopril
  increased; weigh each morning; monitored bed; for the angio list; pacemaker interrogated; slow the pulse to under
  90; heart failure nurse to ring; cholesterol lowering started; bisoprolol titrated; ambulatory tape fitted; murmur
  listened to again; anticoagulation weighed up; serial enzymes

NSTEMI; non-ST elevation MI; heart attack; myocardial infarction; acute coronary syndrome; ACS
told: {chest pain}; heavy central pressure into the {side} arm; sweating and nausea on effort; {breathless}; jaw ache
sign: clammy grey skin; soft first heart sound; chest wall not tender to touch
test: troponin <180..4200> ng/L; ST depression in V4-V6; dynamic T wave inversion; LDL <2.9..4.8> mmol/L
scan: anterior wall hypokinesis; regional wall motion abnormality; calcified LAD; ejection fraction <35..48>%
care: aspirin 300 mg stat; ticagrelor 90 mg twice daily; fondaparinux 2.5 mg; GTN infusion; telemetry
done: coronary angiography via the radial artery; drug eluting stent to the LAD; balloon angioplasty
home: bisoprolol 2.5 mg; atorvastatin 80 mg; GTN spray as needed; aspirin 75 mg

decompensated heart failure; CCF; congestive heart failure; LVF; failing pump; HFrEF
told: {breathless}; {swollen legs}; three pillow orthopnoea; waking at night gasping; {tired}
sign: JVP raised <3..6> cm; bibasal crackles; pitting oedema to the knees; third heart sound
test: NT-proBNP <1800..9400> ng/L; sodium <128..133> mmol/L; weight up <3..8> kg from dry weight
scan: enlarged heart with upper lobe diversion; ejection fraction <18..35>%; Kerley B lines; bilateral effusions
care: IV furosemide <40..120> mg; fluid restriction 1.5 L; daily weights; spironolactone 25 mg; strict fluid balance
done: biventricular pacemaker; right heart catheterisation; defibrillator insertion
home: furosemide 40 mg; ramipril 5 mg; bisoprolol 5 mg; eplerenone 25 mg; dapagliflozin 10 mg

fast AF; atrial fibrillation; irregular heartbeat; paroxysmal AF; AF with rapid ventricular response
told: {palpitations}; {dizzy}; {tired}; {breathless}; fluttering in the chest after alcohol
sign: irregularly irregular pulse; apex rate <120..160> bpm; pulse deficit
test: no P waves on the trace; TSH <0.9..3.4> mU/L; magnesium <0.58..0.72> mmol/L; CHA2DS2-VASc <2..6>
scan: dilated left atrium; left atrial appendage thrombus; preserved ejection fraction
care: IV metoprolol 5 mg; digoxin loading; apixaban 5 mg twice daily; amiodarone via a central line; telemetry
done: DC cardioversion at 200 J; pulmonary vein isolation; transoesophageal echo
home: apixaban 5 mg; digoxin 125 micrograms; bisoprolol 3.75 mg; diltiazem 180 mg

severe aortic stenosis; narrowed aortic valve; AS; calcific aortic valve disease
told: {collapse} on effort; {chest pain}; {breathless}; {dizzy}
sign: ejection systolic murmur to the carotids; slow rising pulse; narrow pulse pressure; quiet second sound
test: LVH with strain; peak gradient <64..98> mmHg; NT-proBNP <900..3600> ng/L
scan: valve area <0.5..0.9> cm2; heavily calcified leaflets; concentric LVH; dilated ascending aorta of <4.1..4.9> cm
care: valve team discussion; cautious diuresis; avoidance of nitrates; pre-TAVI work-up
done: TAVI by the femoral route; bioprosthetic valve replacement; balloon valvuloplasty
home: furosemide 20 mg; bisoprolol 1.25 mg; aspirin 75 mg

complete heart block; CHB; third degree AV block; slow heartbeat; symptomatic bradycardia
told: {collapse}; {dizzy}; {tired}; slow pulse on a home monitor
sign: pulse <28..42> bpm; cannon waves in the neck; variable first heart sound
test: AV dissociation; broad escape rhythm at <30..40> bpm; PR interval <240..320> ms; potassium <4.0..4.9> mmol/L
scan: pacing leads in good position; normal heart size; preserved biventricular function
care: atropine 600 micrograms; isoprenaline infusion; transcutaneous pads; rate limiting tablets held; telemetry
done: dual chamber pacemaker; temporary pacing wire; loop recorder
home: amlodipine 5 mg; candesartan 8 mg; aspirin 75 mg

infective endocarditis; infected heart valve; IE; mitral valve vegetation
told: {fever}; night sweats; {weight loss}; {tired}; {breathless}
sign: new pansystolic murmur; splinter haemorrhages; Janeway lesions; conjunctival petechiae
test: CRP <88..240> mg/L; Streptococcus viridans in three bottles; ESR <60..110> mm/h; PR interval <200..280> ms
scan: <6..15> mm mitral vegetation; severe mitral regurgitation; splenic infarct; root abscess
care: IV benzylpenicillin 2.4 g 4 hourly; gentamicin 1 mg/kg; serial cultures; PICC line; weekly echo
done: mitral valve replacement; transoesophageal echo; dental extraction
home: warfarin to INR 2.5; ramipril 2.5 mg; furosemide 40 mg

acute pericarditis; inflamed heart lining; pericarditis with effusion; myopericarditis
told: sharp {chest pain} eased by sitting forward; {fever}; viral illness last week; {palpitations}
sign: friction rub at the left sternal edge; muffled heart sounds; pulsus paradoxus of <8..18> mmHg
test: widespread saddle ST elevation; PR depression; troponin <20..160> ng/L; CRP <40..130> mg/L
scan: pericardial effusion of <0.8..2.2> cm; no tamponade physiology; bright pericardium on MRI
care: colchicine 500 micrograms twice daily; ibuprofen 600 mg; rest from sport; serial echo
done: pericardiocentesis; pericardial window
home: colchicine 500 micrograms; omeprazole 20 mg

ventricular tachycardia; VT; broad complex tachycardia; dilated cardiomyopathy; DCM; ICD shocks
told: {collapse}; {palpitations}; two shocks from the device; {breathless}; {chest pain}
sign: displaced apex beat; cool peripheries; device site clean
test: runs of VT at <160..210> bpm; QTc <450..520> ms; potassium <3.0..3.6> mmol/L; magnesium <0.55..0.70> mmol/L
scan: globally dilated LV of <6.1..7.4> cm; mid-wall late enhancement; ejection fraction <20..34>%
care: IV amiodarone 300 mg; magnesium 8 mmol; device interrogation; telemetry; mexiletine 200 mg
done: VT ablation; ICD generator change; DC cardioversion at 200 J
home: amiodarone 200 mg; sacubitril valsartan 49/51 mg; carvedilol 12.5 mg
"""

PULMONOLOGY = """
usual: saturations to be kept at 88-92%; inhaler technique checked; spacer given; chest physio twice daily; blood gas
  in an hour; sputum pot sent; spirometry booked; stop smoking advice; six minute walk of <120..420> m; wean oxygen by
  1 L; repeat CXR in six weeks; nebs as needed; lung function before clinic; pulse oximetry overnight; breathing
  exercises; pneumococcal jab; oxygen titrated down; taught how to use puffers; mask swapped for nasal specs; airway
  clearance with the therapist; arterial gas repeated; phlegm for culture; breathing tests arranged; nicotine
  replacement offered; walking test on air; chest film to be repeated; bronchodilators spaced out; auscultated again
  at noon; sleep oximetry; flu jab given; breathlessness leaflet; lung nodule list

COPD exacerbation; IECOPD; chronic obstructive airways disease; emphysema flare; chronic bronchitis
told: {breathless}; {cough}; more green phlegm; {wheeze}; inhaler use every two hours
sign: prolonged expiration; widespread polyphonic wheeze; pursed lip breathing; accessory muscle use
test: pCO2 <6.8..9.4> kPa; FEV1 <28..48>% predicted; bicarbonate <30..36> mmol/L; eosinophils <0.3..0.8>
scan: hyperinflated lungs; flat hemidiaphragms; bullae at the apices
care: prednisolone 30 mg; salbutamol nebs 2.5 mg; doxycycline 200 mg; venturi 28%; bilevel NIV
done: bronchoscopic valve placement; arterial line; bronchoscopy with washings
home: tiotropium 18 micrograms; salbutamol inhaler; carbocisteine 750 mg; home oxygen 2 L

community acquired pneumonia; CAP; chest infection; LRTI; lobar pneumonia
told: {cough}; {fever}; rusty phlegm; sharp pain on breathing in; {confusion}
sign: bronchial breathing at the {side} base; coarse crackles; dull percussion note; bounding pulse
test: CURB-65 <1..4>; CRP <110..340> mg/L; white cells <13.0..24.0>; pneumococcal antigen
scan: {side} lower lobe consolidation; air bronchograms; small parapneumonic collection
care: IV co-amoxiclav 1.2 g; clarithromycin 500 mg; nasal oxygen 2 L; chest physiotherapy; sputum culture
done: intercostal drain; bronchoscopy with lavage; intubation
home: no regular tablets; amlodipine 5 mg; influenza vaccine yearly

acute severe asthma; asthma attack; brittle asthma; reactive airways; life threatening asthma
told: {wheeze}; {breathless}; night-time {cough}; tight chest after the cat; {palpitations}
sign: silent chest; speaking in single words; polyphonic wheeze; tracheal tug
test: peak flow <110..240> L/min; pCO2 <4.0..5.8> kPa; FeNO <50..110> ppb; IgE <200..900> kU/L
scan: hyperinflated lungs; no pneumothorax; bronchial wall thickening
care: back to back salbutamol nebs; magnesium 2 g; IV hydrocortisone 100 mg; prednisolone 40 mg; peak flow chart
done: intubation; arterial line; bronchial thermoplasty
home: beclometasone formoterol inhaler; montelukast 10 mg; salbutamol inhaler; omalizumab monthly

pulmonary embolism; PE; lung clot; thromboembolism; saddle embolus
told: sharp pain on breathing in; {breathless}; coughing up blood; {collapse}; calf pain after a flight
sign: pleural rub; swollen {side} calf; loud P2; sinus tachycardia of <108..132> bpm
test: D-dimer <1400..9800> ng/mL; S1Q3T3 pattern; pO2 <7.1..9.0> kPa; troponin <20..90> ng/L
scan: filling defects in both lower lobe arteries; right ventricular strain; wedge infarct; clot in the femoral vein
care: dalteparin 15000 units; rivaroxaban 15 mg twice daily; alteplase 50 mg; thrombophilia screen
done: catheter directed thrombolysis; IVC filter; thrombectomy
home: rivaroxaban 20 mg; combined pill stopped; compression stockings

pleural effusion; fluid on the lung; empyema; parapneumonic effusion; exudate
told: {breathless}; dull ache in the {side} flank; {weight loss}; {fever}; dry {cough}
sign: stony dull {side} base; reduced vocal resonance; trachea pushed away
test: pleural pH <6.90..7.25>; pleural protein <34..52> g/L; LDH <400..1900> U/L; lymphocytic fluid
scan: {side} meniscus to the mid-zone; septated fluid of <4..11> cm; pleural thickening
care: drain on free drainage; alteplase and DNase; co-amoxiclav 1.2 g; drain swing check; stop at 1.5 L
done: ultrasound guided pleural aspiration; 12F seldinger drain; VATS decortication; talc pleurodesis
home: furosemide 20 mg; paracetamol 1 g; tunnelled drain bottles

idiopathic pulmonary fibrosis; IPF; interstitial lung disease; ILD; lung scarring
told: {breathless}; dry {cough}; {tired}; pigeons kept for years; {weight loss}
sign: fine end-inspiratory crackles; finger clubbing; desaturation to <78..86>% on walking
test: FVC <48..68>% predicted; TLCO <28..45>%; rheumatoid factor; precipitins
scan: basal honeycombing; traction bronchiectasis; ground glass change; subpleural reticulation
care: nintedanib 150 mg; pulsed methylprednisolone; ambulatory oxygen 4 L; opioids for air hunger
done: cryobiopsy; lavage; surgical lung biopsy
home: pirfenidone 801 mg; nintedanib 150 mg; oramorph 2.5 mg; long term oxygen

bronchiectasis flare; widened airways; chronic suppurative lung disease; cystic fibrosis; CF
told: cups of foul phlegm; {cough}; coughing up blood; {tired}; {fever}
sign: coarse crackles that shift on coughing; clubbed fingers; purulent sputum pot
test: Pseudomonas aeruginosa in sputum; sweat chloride <62..110> mmol/L; IgG <4.0..7.0> g/L; FEV1 <40..65>%
scan: signet ring sign; tree in bud nodules; mucus plugging
care: IV ceftazidime 2 g; nebulised colistin; airway clearance twice daily; tobramycin levels; hypertonic saline
done: bronchial artery embolisation; portacath insertion; bronchoscopy
home: azithromycin 250 mg; carbocisteine 750 mg; dornase alfa; nebulised saline

type 2 failure; obesity hypoventilation; OSA; obstructive sleep apnoea; sleep disordered breathing; CO2 retention
told: morning {headache}; loud snoring with pauses; dozing at the wheel; {breathless}; {swollen legs}
sign: drowsy with flapping tremor; neck size <44..52> cm; saturations <78..86>% on air
test: AHI <32..88> per hour; Epworth <13..22>; pCO2 <7.4..10.2> kPa; haematocrit <0.52..0.60>
scan: raised hemidiaphragms; poor inspiratory film; crowded airway
care: NIV at IPAP <16..26> cmH2O; CPAP overnight; mask fitting; serial blood gases; oxygen target 88-92%
done: sleep study; arterial line; tracheostomy
home: CPAP nightly; amlodipine 10 mg; orlistat 120 mg
"""

GASTROENTEROLOGY = """
usual: stool sample sent; scope list; dietitian to see; LFTs on alternate days; PPI twice daily; bowel prep from
  midnight; MUST score <1..4>; hepatitis screen; small frequent meals; supplements between meals; bowel chart kept; no
  alcohol from now; abdomen re-examined in the evening; coeliac screen; endoscopy consent; antiemetic before food;
  motions charted; camera test requested; nutrition team involved; liver bloods repeated; acid suppression doubled;
  laxatives to clear the bowel; weighed and fed up; viral hepatitis bloods; soft diet; protein drinks; belly
  re-examined; alcohol worker to visit; faeces to the lab; gut rest; gastroscope slot asked for; clear fluids only

upper GI bleed; UGIB; bleeding ulcer; duodenal ulcer; peptic ulcer haemorrhage
told: {black stools}; vomiting of coffee grounds; {dizzy}; {abdominal pain}; ibuprofen for weeks
sign: melaena on the glove; epigastric tenderness; postural drop of <20..40> mmHg
test: haemoglobin <58..84> g/L; urea <12.0..24.0> mmol/L; Blatchford <6..14>; CLO test positive
scan: no free air; contrast blush in the duodenum; thickened antrum
care: pantoprazole infusion 8 mg/h; two units of red cells; nil by mouth; Helicobacter eradication; stool chart
done: OGD with clips and adrenaline; gastroduodenal artery embolisation; oversewing of the ulcer
home: omeprazole 20 mg; naproxen stopped; ferrous sulfate 200 mg

ulcerative colitis; UC flare; Crohn's disease; inflammatory bowel disease; IBD; colitis
told: {diarrhoea} ten times a day; blood and mucus in the stool; {abdominal pain}; {weight loss}; urgency at night
sign: tender left iliac fossa; perianal skin tags; mouth ulcers; tender red nodules on the shins
test: calprotectin <600..2800> ug/g; CRP <45..160> mg/L; albumin <22..30> g/L; stool culture
scan: featureless left colon; thickened terminal ileum; bowel dilated to <5.1..6.8> cm
care: IV hydrocortisone 100 mg; infliximab 5 mg/kg; stool chart; dalteparin 5000 units; low residue diet
done: flexible sigmoidoscopy; subtotal colectomy with ileostomy; ileocaecal resection
home: mesalazine 2.4 g; azathioprine 150 mg; adalimumab 40 mg; budesonide 9 mg

decompensated cirrhosis; ARLD; alcoholic liver disease; chronic liver failure; scarred liver
told: {swollen belly}; {jaundice}; {confusion}; a bottle of spirits a day; {tired}
sign: shifting dullness; spider naevi; liver flap; caput medusae
test: bilirubin <62..340> umol/L; INR <1.6..2.8>; albumin <18..27> g/L; ascitic neutrophils <280..900>
scan: coarse shrunken liver; splenomegaly of <14..19> cm; reversed portal flow; large volume ascites
care: lactulose 20 ml; human albumin 20%; pabrinex; terlipressin 2 mg; rifaximin 550 mg; chlordiazepoxide taper
done: ascitic drain; variceal banding; TIPSS
home: spironolactone 100 mg; propranolol 40 mg; thiamine 100 mg; lactulose 15 ml

acute pancreatitis; inflamed pancreas; gallstone pancreatitis; necrotising pancreatitis
told: {abdominal pain} through to the back; {vomiting}; binge at the weekend; {fever}
sign: guarding in the epigastrium; bruised flanks; absent bowel sounds
test: amylase <680..2900> U/L; lipase <900..4200> U/L; calcium <1.80..2.05> mmol/L; Glasgow score <1..5>
scan: peripancreatic fat stranding; walled off necrosis of <5..12> cm; stones in the gallbladder
care: Hartmann's at 200 ml/h; NJ feeding; morphine PCA; Creon 25000 units; hourly urine output
done: endoscopic necrosectomy; laparoscopic cholecystectomy; NJ tube placement
home: Creon 40000 units; thiamine 100 mg; tramadol 50 mg

ascending cholangitis; infected bile duct; CBD stone; choledocholithiasis; biliary sepsis
told: {jaundice}; {fever} with shaking; dark urine and pale stools; {abdominal pain} after fatty food
sign: yellow sclerae; right upper quadrant tenderness; Murphy's sign
test: ALP <320..980> U/L; bilirubin <48..210> umol/L; E. coli in blood; GGT <400..1200> U/L
scan: duct dilated to <9..18> mm; filling defect in the distal duct; thick walled gallbladder
care: IV tazocin 4.5 g; vitamin K 10 mg; nil by mouth; metronidazole 500 mg
done: ERCP with sphincterotomy; biliary stent; percutaneous cholecystostomy
home: ursodeoxycholic acid 500 mg; simvastatin 20 mg

coeliac disease; gluten enteropathy; malabsorption; villous atrophy; short gut
told: bloating after bread; {diarrhoea}; {weight loss}; {tired}; pale floating stools
sign: angular stomatitis; blistering itchy elbows; BMI <16.0..18.9>
test: tTG <60..250> U/mL; ferritin <4..11> ug/L; folate <1.8..3.0> ug/L; vitamin D <12..26> nmol/L
scan: jejunal fold loss; flocculation of contrast; reversed fold pattern
care: gluten free diet; dietitian advice; iron infusion 1 g; refeeding bloods; parenteral feeding
done: duodenal biopsies; capsule endoscopy; tunnelled feeding line
home: folic acid 5 mg; calcium and vitamin D; gluten free prescriptions; loperamide 4 mg

food bolus obstruction; oesophageal stricture; reflux oesophagitis; GORD; achalasia; gullet narrowing
told: food sticking; {vomiting}; heartburn at night; {weight loss}; {chest pain} after meals
sign: drooling; wasted temples; no neck swelling
test: haemoglobin <95..112> g/L; eosinophils <0.6..1.4>; pH study score <22..60>; normal troponin
scan: bird beak tapering; hiatus hernia of <3..7> cm; hold up at the lower gullet
care: pureed diet; esomeprazole 40 mg; IV fluids 1 L; budesonide orodispersible; hyoscine 20 mg
done: balloon dilatation to 15 mm; OGD with bolus removal; Heller myotomy
home: lansoprazole 30 mg; gaviscon 10 ml; domperidone 10 mg

acute diverticulitis; C. difficile colitis; bowel obstruction; SBO; lower GI bleed; diverticular abscess
told: {abdominal pain}; {diarrhoea} after antibiotics; absolute constipation; fresh blood in the pan; {vomiting}
sign: distended tympanic abdomen; left sided peritonism; tinkling bowel sounds
test: toxin PCR positive; lactate <1.9..4.2> mmol/L; white cells <14.0..31.0>; CRP <90..280> mg/L
scan: pericolic abscess of <2..6> cm; loops dilated to <3.2..4.8> cm; transition point in the pelvis
care: oral vancomycin 125 mg; NG tube on free drainage; drip and suck; metronidazole 500 mg; stool chart
done: Hartmann's procedure; adhesiolysis; colonoscopy to the caecum; radiological drainage
home: ispaghula sachets; mebeverine 135 mg; macrogol twice daily
"""

NEUROLOGY = """
usual: pupils checked hourly; MRI head booked; swallow assessed; EEG booked; limb power charted; GCS each hour; plain
  CT head repeated; told not to drive; gait watched; tone and reflexes charted; CSF sent; speech therapist to see;
  cognitive score <17..29>/30; nerve studies; visual fields plotted; head end up; coma score charted; brain MRI
  requested; SALT to assess; brainwave recording arranged; strength tested each shift; eye movements rechecked; head
  CT in the morning; DVLA informed; walking observed; reflexes rechecked; spinal fluid to the lab; thickened drinks;
  memory test; conduction tests arranged; sensation mapped; pupils equal at handover

ischaemic stroke; CVA; MCA infarct; TIA; cerebral infarction; mini-stroke
told: {weakness} of the {side} arm; {slurred speech}; facial droop; woke unable to stand; loss of vision in one eye
sign: power <1..4>/5 on the {side}; upgoing plantar; NIHSS <4..19>; visual field loss
test: glucose <5.1..8.9> mmol/L; cholesterol <5.2..7.1> mmol/L; sinus rhythm on 72 hour tape
scan: loss of grey white matter; dense MCA; restricted diffusion in the {side} hemisphere; <55..85>% carotid narrowing
care: thrombolysis within the window; aspirin 300 mg; swallow screen; clopidogrel 75 mg; intermittent compression
done: mechanical thrombectomy; carotid endarterectomy; PEG insertion
home: clopidogrel 75 mg; atorvastatin 40 mg; perindopril 4 mg

status epilepticus; epilepsy; seizure; tonic-clonic fit; breakthrough fits; convulsion
told: {fits}; bitten tongue; {confusion} afterwards; missed tablets; odd smell and then nothing
sign: post-ictal; jerking of the {side} hand; GCS <7..13>; eyes deviated
test: lactate <4.0..9.0> mmol/L; prolactin raised; spike and wave discharges; phenytoin level <4..9> mg/L
scan: mesial temporal sclerosis; old frontal gliosis; no space occupying lesion
care: lorazepam 4 mg; levetiracetam 1 g twice daily; phenytoin loading 20 mg/kg; seizure chart; no driving
done: video EEG; intubation for airway protection; vagal nerve stimulator
home: levetiracetam 750 mg; sodium valproate 600 mg; lamotrigine 100 mg; buccal midazolam

multiple sclerosis; MS relapse; demyelination; relapsing remitting MS; optic neuritis
told: {numbness}; painful loss of colour vision; {weakness} of both legs; bladder urgency; shocks on neck bending
sign: relative afferent pupil defect; brisk reflexes; internuclear ophthalmoplegia; sensory level at T<6..10>
test: oligoclonal bands; VEP delay of <118..140> ms; B12 <280..520> ng/L; JC virus titre
scan: periventricular plaques; enhancing cord lesion at C<3..6>; Dawson fingers
care: methylprednisolone 1 g for three days; baclofen 10 mg; intermittent catheter teaching; natalizumab infusion
done: lumbar puncture; baclofen pump
home: dimethyl fumarate 240 mg; baclofen 20 mg; oxybutynin 5 mg; fampridine 10 mg

Parkinson's disease; PD; parkinsonism; shaking palsy; Lewy body dementia
told: shaking of the {side} hand; {falls}; freezing in doorways; seeing children in the room; small handwriting
sign: pill rolling tremor; cogwheel rigidity; expressionless face; shuffling gait
test: lying and standing drop of <22..48> mmHg; MoCA <14..24>/30; urine dip clear
scan: reduced dopamine uptake; generalised atrophy; no subdural
care: co-careldopa on time; rotigotine patch 4 mg; metoclopramide avoided; apomorphine; speech and swallow therapy
done: deep brain stimulator; PEJ for levodopa gel
home: co-careldopa 125 mg; rasagiline 1 mg; rivastigmine patch; ropinirole 8 mg

Guillain-Barre syndrome; GBS; inflammatory neuropathy; CIDP; ascending paralysis
told: {weakness} climbing from the feet; {numbness}; loose stools last month; {slurred speech}; {back pain}
sign: areflexia; bilateral facial weakness; glove and stocking loss; power <2..4>/5 in all limbs
test: CSF protein <0.8..2.4> g/L; vital capacity <0.9..2.2> L; Campylobacter serology; slowed conduction
scan: enhancing nerve roots; normal cord signal; no compressive lesion
care: IVIG 0.4 g/kg; vital capacity 4 hourly; plasma exchange; gabapentin 300 mg; passive limb exercises
done: lumbar puncture; tracheostomy; nerve conduction studies
home: gabapentin 300 mg; IVIG monthly; amitriptyline 10 mg

subarachnoid haemorrhage; SAH; burst aneurysm; subdural; intracranial bleed; SDH
told: sudden worst ever {headache}; {vomiting}; stiff neck; {collapse}; {confusion}
sign: photophobia; third nerve palsy; GCS <8..14>; retinal haemorrhage
test: xanthochromia; sodium <126..132> mmol/L; INR <1.0..3.6>; opening pressure <22..34> cmCSF
scan: blood in the basal cisterns; <4..9> mm aneurysm; crescent with midline shift of <4..11> mm; ventricles enlarged
care: nimodipine 60 mg 4 hourly; pupil checks hourly; head up 30 degrees; beriplex; levetiracetam 500 mg
done: coiling of the aneurysm; burr hole evacuation; external ventricular drain
home: nimodipine course; warfarin stopped; amlodipine 5 mg

bacterial meningitis; encephalitis; brain infection; meningoencephalitis; HSV encephalitis
told: {headache}; {fever}; stiff neck; {confusion}; {fits}; rash on the legs
sign: Kernig's sign; non-blanching spots; photophobia; GCS <9..14>
test: CSF white cells <120..2400>; CSF glucose <1.1..2.4> mmol/L; HSV PCR; meningococcal PCR
scan: temporal lobe swelling; leptomeningeal enhancement; no abscess
care: ceftriaxone 2 g twice daily; dexamethasone 10 mg; aciclovir 10 mg/kg; side room; contact tracing
done: lumbar puncture; intubation; ventricular drain
home: levetiracetam 500 mg; no regular tablets; hearing aid

myasthenia gravis; MG; motor neurone disease; MND; ALS; fatigable weakness
told: drooping eyelids by evening; double vision; {slurred speech}; choking on fluids; {weakness} of the hands
sign: fatigable ptosis; tongue fasciculation; wasted first web space; head drop
test: acetylcholine receptor antibody; vital capacity <1.1..2.4> L; decrement on stimulation; CK <180..620> U/L
scan: thymic mass of <2..5> cm; normal brain; normal cord signal
care: pyridostigmine 60 mg; IVIG 0.4 g/kg; prednisolone slow increase; cough assist; thickened fluids
done: thymectomy; RIG insertion; EMG
home: pyridostigmine 60 mg; riluzole 50 mg; azathioprine 100 mg; glycopyrronium 1 mg
"""

NEPHROLOGY = """
usual: input and output charted; nephrotoxics avoided; urine dip repeated; U&E daily; bladder scan after voiding;
  doses cut to eGFR; urine protein sent; kidney ultrasound booked; no cannula in the {side} arm; potassium rechecked
  in <2..6> hours; pressure target 130/80; bicarbonate followed; fluids matched to output; low salt diet sheet;
  immunology screen; contrast only if vital; urine output each hour; no NSAIDs; urinalysis again; creatinine trended;
  post-void residual measured; tablets adjusted for clearance; protein creatinine ratio; ultrasound of the urinary
  tract; arm veins preserved; potassium repeated; tighter pressure control; acid base watched; replace losses only;
  avoid bananas and crisps; ANA and ANCA sent; gadolinium avoided

acute kidney injury; AKI stage 3; ATN; kidney failure after dehydration; obstructed kidneys
told: {low urine}; {vomiting}; {diarrhoea} for days; ibuprofen for a bad back; {tired}
sign: dry mucous membranes; palpable bladder; reduced skin turgor
test: creatinine <280..860> umol/L; urea <24.0..48.0> mmol/L; potassium <5.9..7.1> mmol/L; CK <900..42000> U/L
scan: bilateral hydronephrosis; kidneys of <10.0..12.0> cm; bladder residual <500..1400> ml
care: Hartmann's 250 ml boluses; ramipril held; hourly catheter volumes; calcium gluconate 10 ml; sick day rules
done: temporary vascath; nephrostomy; urinary catheter insertion
home: ramipril 10 mg; metformin stopped; indapamide 2.5 mg; ibuprofen bought over the counter

end stage kidney disease; ESKD; CKD 5; dialysis dependent; uraemia; failed kidneys
told: {itch}; {breathless}; missed sessions; {swollen legs}; metallic taste; {tired}
sign: thrill over the fistula; coated tongue; sallow skin; tunnelled line site clean
test: eGFR <5..12>; phosphate <1.9..2.9> mmol/L; PTH <48..160> pmol/L; urea reduction ratio <58..74>%
scan: small echogenic kidneys of <6.5..8.4> cm; fistula stenosis; vascular calcification
care: haemodialysis 4 hours; ultrafiltration <1.5..3.5> L; darbepoetin 40 micrograms; low potassium diet; dry weight
done: brachiocephalic fistula; tunnelled line exchange; Tenckhoff catheter; fistuloplasty
home: sevelamer 800 mg; alfacalcidol 0.25 micrograms; darbepoetin weekly; sodium bicarbonate 1 g

nephrotic syndrome; minimal change disease; membranous disease; heavy protein leak; FSGS
told: {swollen legs}; frothy urine; puffy eyes on waking; {swollen belly}; {tired}
sign: periorbital oedema; sacral oedema; white nails; pitting to the thigh
test: albumin <14..22> g/L; urine PCR <480..1400> mg/mmol; cholesterol <8.0..12.0> mmol/L; PLA2R antibody
scan: normal sized bright kidneys; vein patent; bilateral effusions
care: prednisolone 60 mg; IV furosemide 80 mg with albumin; low salt diet; dalteparin 5000 units; tacrolimus
done: native kidney biopsy; rituximab infusion
home: prednisolone 40 mg; furosemide 80 mg; losartan 50 mg; co-trimoxazole 480 mg

rapidly progressive glomerulonephritis; ANCA vasculitis; GPA; IgA nephritis; Goodpasture's; lupus nephritis
told: {blood in urine}; crusting nose; coughing up blood; {joint pain}; {low urine}
sign: purpuric rash on the shins; saddle nose; blood pressure <168..204> mmHg systolic; synovitis of the wrists
test: red cell casts; PR3 <40..180> U/mL; creatinine <180..540> umol/L; C3 <0.4..0.8> g/L
scan: cavitating nodules; alveolar haemorrhage; normal sized kidneys
care: pulsed methylprednisolone; cyclophosphamide 15 mg/kg; plasma exchange; rituximab 1 g; mycophenolate
done: native kidney biopsy; plasma exchange line; bronchoscopy with lavage
home: mycophenolate 1 g; prednisolone 15 mg; irbesartan 150 mg; co-trimoxazole 480 mg

kidney transplant rejection; graft dysfunction; transplant kidney failing; BK nephropathy; allograft AKI
told: pain over the graft; {fever}; {low urine}; missed tacrolimus; {diarrhoea}
sign: tender right iliac fossa mass; tremor; gum overgrowth
test: tacrolimus <3.0..16.0> ug/L; creatinine <190..420> umol/L; BK viral load; donor specific antibody
scan: graft perfused with resistive index <0.72..0.94>; lymphocele of <4..9> cm; ureteric stent in place
care: methylprednisolone 500 mg; thymoglobulin; tacrolimus troughs; valganciclovir 450 mg; fluid match
done: graft biopsy; ureteric stent removal; living donor transplant
home: tacrolimus 4 mg; mycophenolate 500 mg; prednisolone 5 mg; valganciclovir 450 mg

polycystic kidney disease; ADPKD; cystic kidneys; infected cyst; cyst haemorrhage
told: {flank pain}; {blood in urine}; {headache}; {fever}; dragging weight in the belly
sign: ballotable masses in both flanks; hepatomegaly of <4..9> cm; blood pressure <158..186> mmHg systolic
test: eGFR <18..44>; CRP <60..190> mg/L; haemoglobin <110..160> g/L; red cells in urine
scan: innumerable cysts; kidney length <17..24> cm; liver cysts; intracystic blood
care: ciprofloxacin 500 mg; tolvaptan 45 mg; fluid intake 3 L; analgesic ladder; blood pressure target 130/80
done: cyst aspiration; nephrectomy before grafting; cyst deroofing
home: tolvaptan 60 mg; losartan 100 mg; amlodipine 10 mg

severe hyperkalaemia; high potassium; type 4 RTA; metabolic acidosis; diabetic nephropathy; DKD
told: {weakness}; {palpitations}; {low urine}; {tired}; salt substitute in every meal
sign: slow irregular pulse; deep sighing breaths; ankle oedema
test: potassium <6.4..7.6> mmol/L; bicarbonate <9..15> mmol/L; urine ACR <70..380> mg/mmol; tall tented T waves
scan: scarred kidneys of <8.0..9.5> cm; no obstruction; calcified arteries
care: calcium gluconate 30 ml; insulin 10 units in dextrose; sodium zirconium 10 g; bicarbonate 1.26%; telemetry
done: temporary vascath; arterial line; urgent filtration
home: lisinopril 20 mg; sodium bicarbonate 500 mg; patiromer 8.4 g; finerenone 10 mg

acute pyelonephritis; kidney infection; urosepsis; kidney stone; ureteric colic; infected stone
told: {flank pain}; {fever} with shaking; {burning urine}; {vomiting}; {blood in urine}
sign: loin tenderness on the {side}; rigors; writhing with pain
test: nitrites and leucocytes; E. coli over 100000; lactate <2.1..4.6> mmol/L; creatinine <120..240> umol/L
scan: <5..12> mm stone at the pelviureteric junction; perinephric stranding; hydroureter
care: IV gentamicin 5 mg/kg; diclofenac 75 mg; tamsulosin 400 micrograms; urine sieving; ciprofloxacin 500 mg
done: JJ stent; nephrostomy; ureteroscopy with laser
home: trimethoprim 100 mg nightly; potassium citrate; tamsulosin 400 micrograms
"""

ORTHOPAEDICS = """
usual: weight bearing as tolerated; distal pulses checked; check film; wound looked at on day <2..5>; sling for
  comfort; plaster checked; trauma list; {side} leg raised; bone health bloods; physio to mobilise with frame; stairs
  before home; range of movement charted; theatre slot tomorrow; splint at night; clips out at <10..14> days; X-ray in
  six weeks; touch weight bearing only; toes warm and moving; post-op radiograph; dressing changed at 48 hrs; collar
  and cuff; cast not tight; listed for fixation; limb elevated on pillows; fragility bloods; walking frame practised;
  steps tried with therapist; bending exercises; consented for surgery; wrist brace; sutures out in two weeks; union
  to be checked on film

neck of femur fracture; NOF; hip fracture; broken hip; intracapsular fracture
told: {falls} at home; groin pain; unable to stand; a long lie of <2..14> hours; {confusion}
sign: shortened and rotated {side} leg; pain on log roll; bruised trochanter; skin intact
test: haemoglobin <92..118> g/L; AMTS <3..10>/10; Nottingham score <3..7>; vitamin D <14..38> nmol/L
scan: displaced subcapital break; Shenton's line lost; osteopenic bone; prosthesis well seated
care: fascia iliaca block; early mobilisation with a frame; dalteparin 5000 units; pressure mattress; bone protection
done: cemented hemiarthroplasty; dynamic hip screw; total hip replacement; cephalomedullary nail
home: alendronic acid 70 mg weekly; calcium and vitamin D; co-codamol 8/500

knee osteoarthritis; OA knee; worn out knee; TKR; degenerative joint disease
told: {joint pain} on stairs; stiffness after sitting; knee giving way; pain at night; {swollen joint}
sign: varus deformity; crepitus; flexion to <70..105> degrees; quadriceps wasting
test: BMI <28..41>; Oxford score <9..22>; normal urate; MRSA swab clear
scan: bone on bone medially; osteophytes; subchondral cysts; components well fixed
care: straight leg raises; cryotherapy cuff; flexion to 90 before home; aspirin 150 mg for 14 days; wound check
done: total knee replacement; unicompartmental knee; steroid injection; manipulation under anaesthetic
home: naproxen 250 mg; co-codamol 30/500; topical ibuprofen gel; duloxetine 30 mg

distal radius fracture; Colles fracture; broken wrist; forearm fracture; both bone fracture
told: trip on a kerb; wrist pain; {numbness} of the thumb; {swollen joint}; fell off a scooter
sign: dinner fork deformity; median nerve sensation dulled; fingers warm; capillary refill <1..3> s
test: haemoglobin <118..142> g/L; vitamin D <20..44> nmol/L; group and save
scan: dorsal angulation of <15..38> degrees; ulnar styloid avulsion; plate and screws in position
care: haematoma block; backslab; elevation in a sling; finger exercises; repeat film at one week
done: volar locking plate; manipulation and K-wires; carpal tunnel release
home: co-codamol 8/500; risedronate 35 mg weekly; calcium and vitamin D

septic arthritis; infected joint; hot swollen knee; prosthetic joint infection; PJI
told: {joint pain}; {fever}; {swollen joint}; unable to bend the knee; discharging wound
sign: hot effusion; held in flexion; sinus over the scar; pain on any movement
test: CRP <130..360> mg/L; synovial white cells <48000..160000>; Staph aureus in fluid; no crystals
scan: joint effusion; lucency around the stem; marrow oedema; periosteal reaction
care: IV flucloxacillin 2 g 6 hourly; rifampicin 450 mg; splint; PICC line; six weeks of antibiotics
done: arthroscopic washout; DAIR; first stage revision; joint aspiration
home: allopurinol 100 mg; paracetamol 1 g; doxycycline 100 mg

ankle fracture; bimalleolar fracture; broken ankle; Weber B; tibial fracture; tib-fib
told: twisted ankle off a step; unable to weight bear; {swollen joint}; {numbness} of the toes; motorbike spill
sign: fracture blisters; tense calf; medial tenderness; foot pulses present
test: compartment pressure <18..44> mmHg; CK <400..9000> U/L; haemoglobin <104..138> g/L; HbA1c <38..64> mmol/mol
scan: talar shift; syndesmosis widened; spiral shaft break; joint line step of <2..6> mm
care: below knee cast; leg elevated on a frame; non weight bearing six weeks; tranexamic acid 1 g; hourly toe checks
done: ORIF with plate and screws; intramedullary nail; fasciotomy; external fixator
home: dalteparin while in plaster; co-codamol 30/500; ibuprofen 400 mg

cauda equina syndrome; CES; lumbar disc prolapse; slipped disc; sciatica; spinal stenosis
told: {back pain}; {numbness} between the legs; shooting pain below the knee; unable to pass water; {weakness}
sign: straight leg raise <20..45> degrees; reduced anal tone; foot drop; absent ankle jerk
test: bladder residual <280..900> ml; CRP <3..14> mg/L; normal calcium
scan: L<4..5> disc extrusion; canal stenosis; thecal sac compression; Modic change
care: bed rest with log roll; urgent decompression; amitriptyline 10 mg; bladder scans; core exercises
done: lumbar discectomy; decompression and fusion; nerve root block
home: amitriptyline 20 mg; naproxen 500 mg; gabapentin 300 mg; tramadol 50 mg

shoulder dislocation; rotator cuff tear; proximal humerus fracture; frozen shoulder; dislocated shoulder
told: fell on an outstretched hand; {joint pain}; arm stuck; {weakness} lifting overhead; {fits} at the time
sign: squared off contour; regimental badge numbness; painful arc; external rotation <0..30> degrees
test: haemoglobin <120..146> g/L; HbA1c <40..70> mmol/mol; group and save
scan: Hill-Sachs lesion; full thickness supraspinatus tear of <1..4> cm; head split; greater tuberosity fragment
care: polysling; pendular exercises; entonox reduction; interscalene block; hydrodilatation
done: closed reduction under sedation; arthroscopic cuff repair; reverse shoulder replacement
home: paracetamol 1 g; naproxen 250 mg; topical ibuprofen gel

osteomyelitis; bone infection; diabetic foot infection; discitis; vertebral fracture; crush fracture
told: {back pain}; {fever}; foot ulcer for months; {weight loss}; height loss of <2..6> cm
sign: bony tenderness; probe to bone; kyphosis; sausage toe
test: ESR <58..120> mm/h; CRP <70..210> mg/L; Staph aureus from bone; HbA1c <58..98> mmol/mol
scan: endplate erosion; wedge compression of T<8..12>; sequestrum; marrow oedema
care: IV flucloxacillin 2 g; offloading boot; brace when upright; teriparatide 20 micrograms; six weeks of antibiotics
done: toe amputation; bone biopsy; vertebroplasty; debridement and antibiotic beads
home: zoledronate yearly; clindamycin 300 mg; modified release morphine 10 mg
"""

ENDOCRINOLOGY = """
usual: capillary glucose four times daily; HbA1c sent; TFTs in six weeks; insulin doses reviewed; steroid rules
  explained; 9 am cortisol; ketones if unwell; diabetes nurse to see; hypo box at the bedside; calcium daily; feet
  checked; pituitary bloods; carbohydrate counting; hormone levels awaited; sensor readings downloaded; paired samples
  sent; finger prick sugars before meals; glycated haemoglobin sent; thyroid bloods in six weeks; basal dose changed;
  told to double steroids if ill; morning cortisol; blood ketones twice daily; DSN to see; glucose gel at hand;
  adjusted calcium tomorrow; podiatry to see; gonadotrophins sent; taught to count carbs; synacthen result awaited;
  glucose meter uploaded; paired osmolalities

diabetic ketoacidosis; DKA; type 1 diabetes; T1DM; ketosis; insulin lack
told: {thirst}; {vomiting}; {abdominal pain}; insulin left at home; {weight loss}
sign: deep sighing breaths; sweet breath; dry tongue; lumpy injection sites
test: ketones <3.8..7.2> mmol/L; glucose <19..41> mmol/L; pH <6.95..7.25>; HbA1c <78..128> mmol/mol
scan: clear lungs; no collection; normal pancreas
care: fixed rate insulin 0.1 units/kg/h; 0.9% saline with potassium; hourly ketones; pump teaching; foot check
done: central line; arterial line
home: insulin glargine <14..32> units; insulin aspart with meals; glucose sensor; glucagon kit

hyperosmolar state; HHS; type 2 diabetes; T2DM; high blood sugars; hyperglycaemia
told: {thirst}; {confusion}; {tired}; steroids from the GP; {burning urine}
sign: sunken eyes; reduced skin turgor; infected toe; drowsy
test: osmolality <330..372> mOsm/kg; glucose <32..58> mmol/L; sodium <148..160> mmol/L; HbA1c <84..130> mmol/mol
scan: small vessel change; clear lungs; no abscess
care: 0.9% saline 1 L over 2 hours; insulin 0.05 units/kg/h; dalteparin 5000 units; hourly capillary glucose; foot check
done: central line; toe debridement; urinary catheter insertion
home: metformin 1 g; gliclazide 80 mg; semaglutide weekly; empagliflozin 10 mg

thyrotoxicosis; Graves' disease; overactive thyroid; hyperthyroidism; thyroid storm; goitre
told: {palpitations}; {weight loss}; heat intolerance; gritty staring eyes; {diarrhoea}; {anxious}
sign: fine tremor; lid lag; bruit over a smooth goitre; pulse <112..148> bpm
test: TSH below 0.01 mU/L; free T4 <38..84> pmol/L; TRAb <4..22> IU/L; neutrophils <2.1..4.8>
scan: diffuse high uptake; retrosternal extension; enlarged vascular gland; proptosis of <20..26> mm
care: carbimazole 40 mg; propranolol 40 mg; hydrocortisone 100 mg; Lugol's iodine; warning of agranulocytosis
done: total thyroidectomy; radioiodine 550 MBq; orbital decompression
home: carbimazole 20 mg; propranolol 40 mg; selenium 100 micrograms

profound hypothyroidism; underactive thyroid; myxoedema; Hashimoto's; slow thyroid
told: {tired}; cold all the time; constipation; weight up <6..15> kg; {low mood}; hoarse voice
sign: slow relaxing reflexes; puffy face; dry coarse skin; temperature <33.8..35.4> C
test: TSH <48..140> mU/L; free T4 <1.8..5.0> pmol/L; TPO antibody; sodium <124..131> mmol/L
scan: small heterogeneous gland; pericardial fluid of <0.6..1.4> cm; enlarged heart
care: levothyroxine 50 micrograms; IV liothyronine; hydrocortisone 50 mg; slow rewarming; telemetry
done: fine needle aspiration; central line
home: levothyroxine 100 micrograms; calcium and vitamin D; statin held

Addisonian crisis; Addison's; adrenal failure; steroid deficiency; hypoadrenalism
told: {tired}; {dizzy}; salt craving; {vomiting}; tanned without sun; missed hydrocortisone
sign: dark palmar creases; postural drop of <24..46> mmHg; vitiligo; buccal pigmentation
test: 9 am cortisol <28..110> nmol/L; ACTH <140..620> ng/L; sodium <118..128> mmol/L; potassium <5.3..6.2> mmol/L
scan: small calcified glands; bilateral haemorrhage; normal bowel
care: hydrocortisone 100 mg stat; 0.9% saline 1 L; steroid card; short synacthen test; injection kit teaching
done: central line; CT guided biopsy
home: hydrocortisone 10 mg/5 mg/5 mg; fludrocortisone 100 micrograms; emergency injection

Cushing's syndrome; cortisol excess; pituitary adenoma; acromegaly; pituitary tumour; prolactinoma
told: weight gain round the middle; easy bruising; tighter rings and shoes; {headache}; loss of side vision; {low mood}
sign: purple striae; moon face; bitemporal loss; proximal weakness; spade hands
test: cortisol <180..420> nmol/L after dexamethasone; IGF-1 <58..120> nmol/L; prolactin <900..9000> mU/L
scan: <8..28> mm sellar mass; chiasm lifted; <2..5> cm adrenal nodule; wedge fracture
care: metyrapone 500 mg; cabergoline 500 micrograms; octreotide 100 micrograms; paired osmolality
done: transsphenoidal resection; laparoscopic adrenalectomy; petrosal sampling
home: cabergoline weekly; hydrocortisone 10 mg; testosterone gel; desmopressin 100 micrograms

primary hyperparathyroidism; PHPT; hypercalcaemia; high calcium; parathyroid adenoma; hypocalcaemia
told: {thirst}; constipation; {low mood}; {flank pain} from stones; {tired}; {numbness} round the mouth
sign: dry mucous membranes; Chvostek's sign; healed neck scar; proximal weakness
test: calcium <2.85..3.60> mmol/L; PTH <12..38> pmol/L; phosphate <0.5..0.8> mmol/L; vitamin D <18..60> nmol/L
scan: sestamibi uptake behind the lower pole; stones in both kidneys; T score <2.6..3.9> below the mean
care: 0.9% saline 4 L; zoledronate 4 mg; cinacalcet 30 mg; calcium gluconate infusion; ECG for QT
done: minimally invasive parathyroidectomy; neck exploration
home: cinacalcet 30 mg; calcium and vitamin D; alendronic acid 70 mg weekly; alfacalcidol 0.5 micrograms

severe hypoglycaemia; hypo; low blood sugar; insulinoma; phaeochromocytoma; SIADH; low sodium
told: {confusion} before breakfast; sweating and shaking; {palpitations}; {headache} in spells; {fits}
sign: pale and sweaty; GCS <9..14>; blood pressure swings to <190..230> mmHg; euvolaemic
test: glucose <1.6..2.8> mmol/L; metanephrines <2400..9800> pmol/L; sodium <114..124> mmol/L; C-peptide high
scan: <1..2> cm pancreatic nodule; <3..7> cm adrenal mass; bright on T2
care: dextrose 20% 100 ml; gliclazide stopped; phenoxybenzamine 10 mg; fluid restriction 750 ml; demeclocycline
done: laparoscopic adrenalectomy; enucleation of the nodule; supervised 72 hour fast
home: diazoxide 50 mg; gliclazide 40 mg; doxazosin 4 mg; insulin mixture 20 units
"""

ONCOLOGY = """
usual: performance status <0..3>; MDT on Thursday; day unit bloods before next cycle; staging CT; antiemetics as
  required; palliative team to see; markers each month; goals of care talked through; port flushed; next cycle put
  back a week; dose cut by <20..25>%; helpline number given; keyworker to ring; scan after three cycles; consent for
  treatment; ceiling of care agreed; fit for chemo; discussed at tumour board; pre-chemo bloods; restaging scan;
  ondansetron if sick; hospice nurse to see; tumour markers sent; prognosis shared; PICC dressing changed; cycle
  delayed; lower dose next time; alert card carried; specialist nurse to ring; response to be assessed; clinical trial
  offered; symptom control only

metastatic breast cancer; breast ca; carcinoma of the breast; HER2 positive disease; breast malignancy
sex: f
told: lump under the arm; {back pain}; {tired}; {breathless}; hair loss since cycle <2..5>
sign: fixed <2..6> cm mass; peau d'orange; supraclavicular node; arm lymphoedema
test: CA 15-3 <60..480> U/mL; ALP <180..520> U/L; corrected calcium <2.70..3.30> mmol/L; LVEF <48..60>%
scan: sclerotic bone deposits; liver lesions; pleural nodularity; node of <1..3> cm
care: docetaxel 75 mg/m2; trastuzumab; denosumab 120 mg; scalp cooling; ondansetron 8 mg
done: wide local excision with sentinel node; mastectomy; portacath insertion
home: letrozole 2.5 mg; tamoxifen 20 mg; palbociclib 125 mg; denosumab monthly

metastatic bowel cancer; colorectal ca; CRC; rectal tumour; colon carcinoma with liver mets
told: {weight loss}; change in bowel habit; {tired}; fresh blood in the pan; tingling in the cold
sign: craggy liver edge; cachexia; stoma healthy; palpable mass
test: CEA <24..680> ug/L; haemoglobin <78..102> g/L; KRAS mutant; bilirubin <12..60> umol/L
scan: multiple liver deposits; apple core narrowing; lung nodules; response by RECIST
care: FOLFOX cycle <2..8>; capecitabine 1250 mg/m2; loperamide 4 mg; dose reduced to 75%; mouth care
done: right hemicolectomy; liver resection; colonic stent; portacath insertion
home: capecitabine; oramorph 5 mg; loperamide 2 mg; cyclizine 50 mg

lung cancer; NSCLC; small cell lung ca; bronchogenic carcinoma; lung malignancy; mesothelioma
told: {cough}; coughing up blood; {weight loss}; {breathless}; hoarse voice; shoulder pain
sign: finger clubbing; distended neck veins; small pupil with droopy lid; dull {side} base
test: sodium <122..131> mmol/L; PD-L1 <5..90>%; EGFR exon 19; calcium <2.70..3.20> mmol/L
scan: spiculated <3..8> cm mass; mediastinal nodes; brain deposits; adrenal deposit
care: carboplatin AUC 5; pembrolizumab 200 mg; dexamethasone 8 mg; 20 Gy in 5 fractions; best supportive care
done: EBUS sampling; SVC stent; lobectomy; pleural catheter
home: osimertinib 80 mg; dexamethasone 4 mg; oramorph 5 mg; nicotine patch

lymphoma; NHL; diffuse large B cell lymphoma; DLBCL; Hodgkin's; lymph gland cancer
told: drenching night sweats; lumps in the neck; {weight loss}; {itch}; {fever}
sign: rubbery nodes of <2..6> cm; splenomegaly of <3..9> cm; tonsil enlarged
test: LDH <480..1600> U/L; urate <0.48..0.82> mmol/L; hepatitis B core; white cells <2.0..14.0>
scan: FDG avid nodes above and below; Deauville <2..5>; mediastinal bulk of <6..12> cm
care: R-CHOP cycle <1..6>; rasburicase 3 mg; allopurinol 300 mg; pegfilgrastim; tumour lysis bloods
done: excision of a neck node; marrow trephine; PICC line
home: aciclovir 400 mg; allopurinol 300 mg; prednisolone 100 mg days 1-5

neutropenic sepsis; febrile neutropenia; low counts after chemo; day <7..12> post chemo infection
told: {fever}; shaking at home; {diarrhoea}; sore mouth; {tired}
sign: mucositis grade <2..4>; line site red; temperature <38.2..39.8> C; oral thrush
test: neutrophils <0.0..0.4>; platelets <12..60>; CRP <60..260> mg/L; lactate <1.4..4.4> mmol/L
scan: no consolidation; thickened caecum; halo sign
care: tazocin 4.5 g within the hour; filgrastim 300 micrograms; side room; gentamicin 5 mg/kg; line cultures
done: Hickman line removal; PICC line; bronchoscopy with lavage
home: levofloxacin cover; nystatin mouthwash; filgrastim days 3-7; next cycle deferred

malignant cord compression; MSCC; bone mets; spinal metastases; secondary cancer of the spine
told: {back pain} worse lying flat; {weakness} of both legs; {numbness}; unable to pass water; {falls}
sign: sensory level at T<5..11>; power <2..4>/5 in the legs; spinal tenderness; brisk reflexes
test: PSA <40..900> ug/L; corrected calcium <2.60..3.20> mmol/L; ALP <240..900> U/L
scan: cord impinged at T<4..12>; vertebral collapse; epidural soft tissue; lytic deposits
care: dexamethasone 16 mg; 8 Gy single fraction; lying flat until stable; zoledronate 4 mg; syringe driver
done: posterior decompression and fixation; vertebroplasty; image guided biopsy
home: modified release morphine 20 mg; dexamethasone 2 mg; lansoprazole 30 mg; senna 15 mg

ovarian cancer; high grade serous carcinoma; peritoneal disease; malignant ascites; BRCA related cancer
sex: f
told: {swollen belly}; early fullness; {weight loss}; {abdominal pain}; {vomiting}
sign: tense ascites; pelvic mass; omental thickening; wasted temples
test: CA-125 <320..4800> U/mL; albumin <22..31> g/L; BRCA1 variant; creatinine <70..140> umol/L
scan: omental cake; complex adnexal mass of <6..14> cm; peritoneal nodules; hydronephrosis
care: carboplatin and paclitaxel cycle <1..6>; olaparib 300 mg; ascitic drain on clamp; syringe driver; bevacizumab
done: debulking surgery; ascitic drain; omental biopsy; laparoscopy
home: olaparib 300 mg; cyclizine 50 mg; levomepromazine 6.25 mg; dalteparin 15000 units

metastatic melanoma; myeloma; immunotherapy toxicity; checkpoint colitis; plasma cell disorder; skin cancer spread
told: {diarrhoea} since the second infusion; {back pain}; {tired}; changing mole; {itch}
sign: wide excision scar; satellite nodules; rib tenderness; maculopapular rash
test: paraprotein <18..52> g/L; kappa <400..2800> mg/L; BRAF V600E; ALT <90..640> U/L
scan: lytic skull lesions; brain deposits of <0.6..2.4> cm; pan-colitis; avid groin nodes
care: methylprednisolone 2 mg/kg; ipilimumab held; bortezomib 1.3 mg/m2; dabrafenib 150 mg; infliximab 5 mg/kg
done: marrow trephine; groin dissection; stem cell harvest; flexible sigmoidoscopy
home: lenalidomide 25 mg; dabrafenib 150 mg; prednisolone 40 mg; aciclovir 200 mg
"""


@dataclass(frozen=True)
class Problem:
    """One clinical problem: its specialty, and its phrases by field (`name`, `told`, `sign`, ...)."""

    specialty: str
    phrases: dict[str, tuple[str, ...]]

    def found_in(self, sex: str) -> bool:
        """Whether a patient of this sex can have it."""
        return sex in self.phrases.get("sex", sex)


def _problems(specialty: str, table: str) -> tuple[Problem, ...]:
    usual, *blocks = table.strip().replace("\n  ", " ").split("\n\n")
    return tuple(Problem(specialty, phrasebook(f"name: {block}\n{usual}")) for block in blocks)


PROBLEMS = {
    specialty: _problems(specialty, table)
    for specialty, table in {
        "cardiology": CARDIOLOGY,
        "pulmonology": PULMONOLOGY,
        "gastroenterology": GASTROENTEROLOGY,
        "neurology": NEUROLOGY,
        "nephrology": NEPHROLOGY,
        "orthopaedics": ORTHOPAEDICS,
        "endocrinology": ENDOCRINOLOGY,
        "oncology": ONCOLOGY,
    }.items()
}
