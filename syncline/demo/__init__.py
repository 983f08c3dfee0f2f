"""`syncline demo`: a synthetic drive through the whole system, and an honest report."""
