from private_helpers import *
def test_x(bases, notes, adversarial):
    for o in ("mlm","declutr-alone","category-plain"):
      for v in (1e20,3e38):
        m=bench(o,bases["bert"],notes,dtype=torch.float32)
        u=m.units(adversarial)
        with torch.no_grad(): m.encoder.body.get_input_embeddings().weight[m.encoder.tokenizer.unk_token_id]=torch.linspace(-v,v,32)
        a,_=m.exact(adversarial,u,key_of(1)); b,_=m.exact(adversarial,without(u,RARE),key_of(1))
        print(o,v,bool(torch.isfinite(flat(a)).all()),bool(torch.isfinite(flat(b)).all()))
