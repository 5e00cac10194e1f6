"""The reference: what each op computes, in torch's operators. It imports torch and the numerics."""
