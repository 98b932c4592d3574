"""Faults in drifts of terms whose constants depend on ranges: products and functions of unbounded slope."""

from __future__ import annotations

from tests.faults.fault import PROOF, Fault

FUNCTIONS = PROOF + "test_drifts_of_steep_functions.py"
PRODUCTS = PROOF + "test_drifts_of_products.py"

FAULTS = (
    Fault(
        name="slopes on a range hold beyond it",
        file="certifier/steep.py",
        old="slopes = self.slopes_on(-add_upper(-lower, cap), add_upper(upper, cap))",
        new="slopes = self.slopes_on(lower, upper)",
        tests=(FUNCTIONS,),
    ),
    Fault(
        name="a function is held on one side of its range alone",
        file="certifier/steep.py",
        old="self.slopes_on(-add_upper(-lower, cap), add_upper(upper, cap))",
        new="self.slopes_on(lower, add_upper(upper, cap))",
        tests=(FUNCTIONS,),
    ),
    Fault(
        name="the drift of what a steep function reads is left out",
        file="certifier/proof/following.py",
        old="return self._after_function(term, held, float(",
        new="return self._after_function(term, 0.0 * held, float(",
        tests=(FUNCTIONS,),
    ),
    Fault(
        name="a steep function moves nothing",
        file="certifier/proof/following.py",
        old="held, float(np.max(term.steepest, initial=0.0)))",
        new="held, 0.0)",
        tests=(FUNCTIONS,),
    ),
    Fault(
        name="what a steep function reads may drift as far as it likes",
        file="certifier/proof/following.py",
        old="times(up(1.0 / cap), self._values[term.sources[0]].drift)",
        new="times(0.0, self._values[term.sources[0]].drift)",
        tests=(FUNCTIONS,),
    ),
    Fault(
        name="kernels of functions are exact",
        file="certifier/proof/following.py",
        old="return sum_of(times(up(at.unit * function.ulps), reached), self._form(constant=float(absolute)))",
        new="return self._form(constant=float(absolute))",
        tests=(FUNCTIONS,),
    ),
    Fault(
        name="results that are flushed to zero cost nothing",
        file="certifier/proof/following.py",
        old="up(at.unit * function.absolute_ulps + 4.0 * at.tiny)",
        new="up(at.unit * function.absolute_ulps)",
        tests=(FUNCTIONS,),
    ),
    Fault(
        name="what functions give overflows nowhere",
        file="certifier/proof/following.py",
        old="self.peak = sum_of(self.peak, times(2.0 / LARGEST[term.dtype], reached))",
        new="pass",
        tests=(FUNCTIONS,),
    ),
    Fault(
        name="the exponential's kernel rounds twice at most",
        file="certifier/steep.py",
        old="""        ulps=16.0,
        absolute_ulps=0.0,
        image=(0.0, math.inf),""",
        new="""        ulps=2.0,
        absolute_ulps=0.0,
        image=(0.0, math.inf),""",
        tests=("tests/certifier/test_steep.py",),
    ),
    Fault(
        name="the drift of a product's first factor is left out",
        file="certifier/proof/following.py",
        old="times(by_first, first.drift)",
        new="times(0.0, first.drift)",
        tests=(PRODUCTS,),
    ),
    Fault(
        name="the drift of a product's second factor is left out",
        file="certifier/proof/following.py",
        old="times(held, second.drift)",
        new="times(0.0, second.drift)",
        tests=(PRODUCTS,),
    ),
    Fault(
        name="a factor changes its role and keeps its bound",
        file="certifier/proof/following.py",
        old="name, other, by_first, by_second = other, name, by_second, by_first",
        new="name, other = other, name",
        tests=(PRODUCTS,),
    ),
    Fault(
        name="the sums of a product are exact",
        file="certifier/proof/following.py",
        old="own = sum_of(times(gamma_upper(count, at.unit), size), flushed)",
        new="own = flushed",
        tests=(PRODUCTS,),
    ),
    Fault(
        name="a factor may drift as far as it likes",
        file="certifier/proof/following.py",
        old="times(up(1.0 / cap), first.drift)",
        new="times(0.0, first.drift)",
        tests=(PRODUCTS,),
    ),
)
