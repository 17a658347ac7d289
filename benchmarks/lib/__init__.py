"""What the benchmarks share: the command line, the machine, processes, stores of rows, statistics, tables."""
# ruff: noqa: F401 - the scripts take these names from here

from lib.arguments import parsed
from lib.machine import BENCHMARKS, ROOT, conditions, data_folder, stamp
from lib.pages import Results, Tables, filled, grouped, listed, markdown, measured_on, where
from lib.process import cpu_seconds, in_own_process, median_seconds, result_of, say, times
from lib.provenance import sources
from lib.stats import Estimate, bootstrap, difference, digits, equivalence, estimate, standard_error, t_975
from lib.store import RESULTS, Lines, Row, Store, read, write_json
