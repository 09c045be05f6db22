"""Normal, Student's t and beta: the few values of them that intervals and tests need.

From scipy.special. The same functions in scipy.stats take a second to import, which every analysis of a run
would wait for.
"""

from __future__ import annotations

from scipy import special


def normal_cdf(x: float) -> float:
    """P(X <= x) of a standard normal X."""
    return float(special.ndtr(x))


def normal_quantile(share: float) -> float:
    """The x at or under which a standard normal lies with this probability (0 to 1)."""
    return float(special.ndtri(share))


def t_quantile(share: float, df: float) -> float:
    """The x at or under which Student's t with `df` degrees of freedom lies with this probability."""
    return float(special.stdtrit(df, share))


def t_tail(x: float, df: float) -> float:
    """P(T > x) of Student's t with `df` degrees of freedom."""
    return float(special.stdtr(df, -x))


def beta_quantile(share: float, a: float, b: float) -> float:
    """The x at or under which a beta distribution with parameters a and b lies with this probability."""
    return float(special.betaincinv(a, b, share))


def binomial_tail(least: int, n: int, share: float) -> float:
    """P(X >= least) of a binomial X of n trials."""
    return float(special.bdtrc(least - 1, n, share)) if least > 0 else 1.0


def f_quantile(share: float, above: float, below: float) -> float:
    """The x at or under which an F distribution with these degrees of freedom lies with this probability."""
    return float(special.fdtri(above, below, share))
