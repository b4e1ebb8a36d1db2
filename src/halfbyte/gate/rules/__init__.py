"""The rules, one file per group. Importing this package registers them all, in the order of tables."""

from halfbyte.gate.rules import selective as selective  # noqa: I001  the order is that of the tables
from halfbyte.gate.rules import integrity as integrity
from halfbyte.gate.rules import numerics as numerics
from halfbyte.gate.rules import loadability as loadability
from halfbyte.gate.rules import serving_config as serving_config
from halfbyte.gate.rules import faults as faults
from halfbyte.gate.rules import hardware as hardware
from halfbyte.gate.rules import supply_chain as supply_chain
from halfbyte.gate.rules import evidence as evidence
from halfbyte.gate.rules import depth as depth
