"""A deployment on paper: Kueue's admission, and a day of traffic with cold starts, against fixed fleets."""
