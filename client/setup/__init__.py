"""What a hospital's people do before, around and after a study: `fednotes site init`, `check`, `inspect` and more."""
