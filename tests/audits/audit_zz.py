from audit_canaries import *
import audit_canaries
import time
def test_x(tmp_path, make_base, texts, monkeypatch):
    monkeypatch.setattr(audit_canaries,"OTHERS",100)
    for hid in (64,128):
      for heads in (4,):
        base=str(make_base(tmp_path/f"b{hid}","bert",hidden_size=hid,intermediate_size=2*hid,num_attention_heads=heads,dropout=0.0))
        h=Hospital(tmp_path/f"h{hid}",base,texts)
        print(len(h.notes), h.all_notes.lengths[:20])
        for steps,lr,mp in ((1000,3e-3,.4),(1000,1e-3,.4)):
            enc=load_encoder(base); plan=h.plan()
            plan=plan.model_copy(update={"training":plan.training.model_copy(update={"learning_rate":lr}),"objective":plan.objective.model_copy(update={"mask_probability":mp})})
            o=make_objective(plan,enc.tokenizer,h.notes)
            t=time.process_time()
            tr=train(enc,o,h.notes,plan.training,key=(1,2),first_step=0,steps=steps,total_steps=steps)
            print(hid,steps,lr,mp,tr.loss,h.attacked(enc),time.process_time()-t,flush=True)
