"""The stand-in for Stripe, driven with Stripe's own library as a shop would."""
