"""Stripe: the requests that we make, its objects as `Seen`, which purchase an object is of."""
