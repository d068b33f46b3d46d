"""The certificate authority: who may have which certificate, and making it."""
