"""The simulated day of a deployment, checked at the door and drawn if it is asked for."""

import math
from pathlib import Path

from halfbyte.deploy.errors import DeployError
from halfbyte.deploy.facts import Served
from halfbyte.deploy.platform import Platform
from halfbyte.deploy.simulation.day import Outcome, Rate, simulate
from halfbyte.deploy.simulation.plot import picture
from halfbyte.errors import UsageError, said
from halfbyte.plots.page import check_plot, write_plot

MOST_REQUESTS = 1e12


def simulated(platform: Platform, one: Served, requests: float, plot: Path | None = None) -> list[Outcome]:
    """See `day.simulate`. Raises UsageError for no number of requests, DeployError for a plan without throughput."""
    if not (math.isfinite(requests) and 0 < requests <= MOST_REQUESTS):
        raise UsageError(said("{simulate} {value:g}: wanted a number of requests a day above 0", value=requests))
    try:
        for place in one.places:
            Rate.of(place.plan)
    except ValueError as error:
        raise DeployError(f"{error}, so its day cannot be simulated", hint="plan a server that fits") from None
    if plot is not None:
        check_plot(plot)
    outcomes = simulate(platform, one, requests)
    if plot is not None:
        title = f"{one.name}: a day of {requests:,.0f} requests"
        write_plot(plot, title, [picture(outcomes[0], title)])
    return outcomes
