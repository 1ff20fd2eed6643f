"""How a call goes: what the user says (:mod:`options`), what is checked (:mod:`door`), who computes it
(:mod:`dispatch`), how it is differentiated (:mod:`derivatives`), and how torch's compilers and transforms see it
(:mod:`operators`)."""
