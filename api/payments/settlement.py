"""What ought to be true of a purchase, by what its provider says now. Pure."""
