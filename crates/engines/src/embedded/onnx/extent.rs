//! Sizes that are known before a run only up to the open sizes of its inputs, and whole numbers that a
//! graph computes from sizes.
//!
//! What a file computes by `Shape` and its kin is followed here as sums of products; a run evaluates
//! them from the shapes that came, in 64 bits, before the numeric graph sees anything. May not know:
//! operators, rten. Invariant: an open size is never negative, and neither is one that is derived by a
//! division, a bound or a broadcast; what would be ends the run.

use std::collections::BTreeMap;

use vesta_model::Status;

/// More terms or factors than this are no size of a network.
const TERMS_MAX: usize = 24;
const FACTORS_MAX: usize = 8;

/// What is said of numbers that cannot be followed.
pub(crate) type Lost = String;

/// A sum of products of open sizes, by their places in [`Extents`].
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub(crate) struct Extent {
    /// What no open size takes part in.
    base: i64,
    /// Factors in order, one at least, and how often; never zero times.
    terms: BTreeMap<Vec<usize>, i64>,
}

/// Where an open size comes from.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord)]
enum Open {
    /// An axis of an input.
    Axis {
        feed: usize,
        axis: usize,
    },
    /// Rounded down.
    Quotient(Extent, Extent),
    /// Two sizes that broadcast.
    Joined(Extent, Extent),
    Larger(Extent, Extent),
    Smaller(Extent, Extent),
}

/// The open sizes of a graph, each after those that it is computed from.
#[derive(Clone, Debug, Default)]
pub(crate) struct Extents {
    all: Vec<Open>,
    places: BTreeMap<Open, usize>,
}

impl From<i64> for Extent {
    fn from(base: i64) -> Extent {
        Extent { base, terms: BTreeMap::new() }
    }
}

impl Extent {
    fn open(place: usize) -> Extent {
        Extent { base: 0, terms: [(vec![place], 1)].into() }
    }

    /// The number, where no open size takes part.
    pub(crate) fn known(&self) -> Option<i64> {
        self.terms.is_empty().then_some(self.base)
    }

    /// As a size.
    pub(crate) fn size(&self) -> Option<usize> {
        usize::try_from(self.known()?).ok()
    }

    pub(crate) fn is(&self, value: i64) -> bool {
        self.known() == Some(value)
    }

    /// Whether it is below zero in no run.
    pub(crate) fn is_natural(&self) -> bool {
        self.base >= 0 && self.terms.values().all(|&times| times > 0)
    }

    pub(crate) fn plus(&self, other: &Extent) -> Result<Extent, Lost> {
        let mut sum = self.clone();
        sum.base = sum.base.checked_add(other.base).ok_or_else(lost)?;
        for (factors, times) in &other.terms {
            sum.add(factors.clone(), *times)?;
        }
        sum.bounded()
    }

    pub(crate) fn minus(&self, other: &Extent) -> Result<Extent, Lost> {
        self.plus(&other.times(&Extent::from(-1))?)
    }

    pub(crate) fn times(&self, other: &Extent) -> Result<Extent, Lost> {
        let mut product = Extent::from(0);
        for (a, n) in self.all() {
            for (b, m) in other.all() {
                let mut factors = [a, b].concat();
                factors.sort_unstable();
                if factors.len() > FACTORS_MAX {
                    return Err(lost());
                }
                product.add(factors, n.checked_mul(m).ok_or_else(lost)?)?;
            }
        }
        product.bounded()
    }

    /// All terms, the one without factors first.
    fn all(&self) -> impl Iterator<Item = (&[usize], i64)> {
        let base = (self.base != 0).then_some((&[][..], self.base));
        base.into_iter().chain(self.terms.iter().map(|(factors, &times)| (&factors[..], times)))
    }

    fn add(&mut self, factors: Vec<usize>, times: i64) -> Result<(), Lost> {
        if factors.is_empty() {
            self.base = self.base.checked_add(times).ok_or_else(lost)?;
            return Ok(());
        }
        let own = self.terms.get(&factors).copied().unwrap_or(0);
        match own.checked_add(times).ok_or_else(lost)? {
            0 => self.terms.remove(&factors),
            sum => self.terms.insert(factors, sum),
        };
        Ok(())
    }

    fn bounded(self) -> Result<Extent, Lost> {
        if self.terms.len() > TERMS_MAX { Err(lost()) } else { Ok(self) }
    }

    /// The term that goes before all others, however both are multiplied.
    fn lead(&self) -> Option<(&[usize], i64)> {
        self.all().max_by_key(|(factors, _)| (factors.len(), *factors))
    }

    /// The quotient, if nothing is left over in any run.
    pub(super) fn divided(&self, by: &Extent) -> Option<Extent> {
        let (factors, times) = by.lead()?;
        let (mut rest, mut quotient) = (self.clone(), Extent::from(0));
        for _ in 0..TERMS_MAX {
            let Some((own, n)) = rest.lead() else { return Some(quotient) };
            let mut left = own.to_vec();
            for factor in factors {
                left.remove(left.iter().position(|own| own == factor)?);
            }
            if n.checked_rem(times)? != 0 {
                return None;
            }
            let mut part = Extent::from(0);
            part.add(left, n.checked_div(times)?).ok()?;
            rest = rest.minus(&part.times(by).ok()?).ok()?;
            quotient = quotient.plus(&part).ok()?;
        }
        None
    }

    /// What it is where the open sizes have these values.
    ///
    /// # Errors
    /// `INVALID_ARGUMENT` where it leaves 64 bits.
    pub(crate) fn at(&self, values: &[i64]) -> Result<i64, Status> {
        let far = || Status::invalid_argument("the sizes of this request are beyond 64 bits");
        let mut sum = 0i64;
        for (factors, times) in self.all() {
            let mut product = times;
            for &factor in factors {
                let value = values.get(factor).copied().ok_or_else(far)?;
                product = product.checked_mul(value).ok_or_else(far)?;
            }
            sum = sum.checked_add(product).ok_or_else(far)?;
        }
        Ok(sum)
    }
}

fn lost() -> Lost {
    "its sizes cannot be followed".to_owned()
}

impl Extents {
    fn add(&mut self, open: Open) -> Extent {
        if let Some(&place) = self.places.get(&open) {
            return Extent::open(place);
        }
        let place = self.all.len();
        self.places.insert(open.clone(), place);
        self.all.push(open);
        Extent::open(place)
    }

    /// An open size of an input.
    pub(crate) fn axis(&mut self, feed: usize, axis: usize) -> Extent {
        self.add(Open::Axis { feed, axis })
    }

    /// Rounded down. Neither may be negative.
    ///
    /// # Errors
    /// Where it is known that there is none.
    pub(crate) fn quotient(&mut self, of: &Extent, by: &Extent) -> Result<Extent, Lost> {
        if by.known().is_some_and(|by| by <= 0) || of.known().is_some_and(|of| of < 0) {
            return Err("its sizes do not fit".to_owned());
        }
        if let (Some(of), Some(by)) = (of.known(), by.known()) {
            return Ok(Extent::from(of / by));
        }
        match of.divided(by) {
            Some(quotient) => Ok(quotient),
            None => Ok(self.add(Open::Quotient(of.clone(), by.clone()))),
        }
    }

    /// Sizes that must be the same; the run ends where they are not.
    ///
    /// # Errors
    /// Where it is known that they are not.
    pub(crate) fn expect_same(&mut self, a: &Extent, b: &Extent) -> Result<(), Lost> {
        let (ahead, behind) = (a.minus(b)?, b.minus(a)?);
        if ahead.known().is_some_and(|by| by != 0) {
            return Err("its sizes do not fit".to_owned());
        }
        self.natural(&ahead);
        self.natural(&behind);
        Ok(())
    }

    /// The same number; the run ends where it is below zero.
    pub(crate) fn natural(&mut self, of: &Extent) -> Extent {
        if !of.is_natural() {
            self.add(Open::Quotient(of.clone(), Extent::from(1)));
        }
        of.clone()
    }

    /// What two sizes broadcast to; where one is known and no one, it is that, or the run ends.
    ///
    /// # Errors
    /// Where it is known that they do not.
    pub(crate) fn joined(&mut self, a: &Extent, b: &Extent) -> Result<Extent, Lost> {
        match (a.known(), b.known()) {
            _ if a == b => Ok(a.clone()),
            (Some(1), _) => Ok(b.clone()),
            (_, Some(1)) => Ok(a.clone()),
            (Some(a), Some(b)) => Err(format!("sizes {a} and {b} do not fit")),
            (Some(_), None) => Ok(a.clone()),
            (None, Some(_)) => Ok(b.clone()),
            (None, None) => Ok(self.add(Open::Joined(a.clone(), b.clone()))),
        }
    }

    pub(crate) fn larger(&mut self, a: &Extent, b: &Extent) -> Result<Extent, Lost> {
        Ok(match () {
            () if a.minus(b)?.is_natural() => a.clone(),
            () if b.minus(a)?.is_natural() => b.clone(),
            () => self.add(Open::Larger(a.clone(), b.clone())),
        })
    }

    pub(crate) fn smaller(&mut self, a: &Extent, b: &Extent) -> Result<Extent, Lost> {
        Ok(match () {
            () if a.minus(b)?.is_natural() => b.clone(),
            () if b.minus(a)?.is_natural() => a.clone(),
            () => self.add(Open::Smaller(a.clone(), b.clone())),
        })
    }

    /// The values of all open sizes, for inputs of these shapes.
    ///
    /// # Errors
    /// `INVALID_ARGUMENT` where they do not fit each other.
    pub(crate) fn at(&self, shapes: &[&[usize]]) -> Result<Vec<i64>, Status> {
        let mut values = Vec::with_capacity(self.all.len());
        let odd = |what: &str| Status::invalid_argument(format!("the shapes of the inputs {what}"));
        for open in &self.all {
            let of = |extent: &Extent| extent.at(&values);
            let value = match open {
                Open::Axis { feed, axis } => {
                    let size = shapes.get(*feed).and_then(|shape| shape.get(*axis));
                    let size = size.and_then(|&size| i64::try_from(size).ok());
                    size.ok_or_else(|| odd("are not those that the model declares"))?
                }
                Open::Quotient(a, b) => {
                    let (a, b) = (of(a)?, of(b)?);
                    let quotient = (a >= 0 && b > 0).then(|| a / b);
                    quotient
                        .ok_or_else(|| odd("do not fit the model: a size would be below zero"))?
                }
                Open::Joined(a, b) => match (of(a)?, of(b)?) {
                    (a, b) if a == b || b == 1 => a,
                    (1, b) => b,
                    (a, b) => return Err(odd(&format!("do not fit: {a} and {b} meet"))),
                },
                Open::Larger(a, b) => of(a)?.max(of(b)?),
                Open::Smaller(a, b) => of(a)?.min(of(b)?),
            };
            if value < 0 {
                return Err(odd("do not fit the model: a size would be below zero"));
            }
            values.push(value);
        }
        Ok(values)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn known(value: i64) -> Extent {
        Extent::from(value)
    }

    #[test]
    fn products_divide_where_nothing_is_left() {
        let mut all = Extents::default();
        let (rows, length) = (all.axis(0, 0), all.axis(0, 1));
        let elements = rows.times(&length).unwrap().times(&known(768)).unwrap();
        let head = all.quotient(&elements, &rows.times(&length).unwrap()).unwrap();
        assert_eq!(head.known(), Some(768));
        let (wide, high) =
            (rows.plus(&known(1)).unwrap(), length.minus(&known(2)).unwrap().times(&rows).unwrap());
        let area = wide.times(&high).unwrap();
        assert_eq!(all.quotient(&area, &wide).unwrap(), high);
        assert_eq!(all.quotient(&area, &high).unwrap(), wide);
        let odd = all.quotient(&length.plus(&known(1)).unwrap(), &known(2)).unwrap();
        assert_eq!(odd.known(), None);
        let values = all.at(&[&[3, 8]]).unwrap();
        assert_eq!((elements.at(&values).unwrap(), odd.at(&values).unwrap()), (3 * 8 * 768, 4));
    }

    #[test]
    fn what_does_not_fit_ends_the_run() {
        let mut all = Extents::default();
        let (a, b) = (all.axis(0, 0), all.axis(1, 0));
        let both = all.joined(&a, &b).unwrap();
        let less = all.quotient(&a.minus(&known(3)).unwrap(), &known(2)).unwrap();
        let sizes = |a: usize, b: usize| all.at(&[&[a][..], &[b]]);
        assert_eq!(both.at(&sizes(5, 1).unwrap()).unwrap(), 5);
        assert_eq!(less.at(&sizes(7, 7).unwrap()).unwrap(), 2);
        assert!(sizes(5, 4).is_err() && sizes(2, 2).is_err());
        assert!(a.times(&a).unwrap().at(&sizes(1 << 40, 1 << 40).unwrap()).is_err());
    }

    #[test]
    fn sizes_that_must_be_the_same_are_held_to_it() {
        let mut all = Extents::default();
        let (a, b) = (all.axis(0, 0), all.axis(1, 0));
        all.expect_same(&a, &b).unwrap();
        assert!(all.at(&[&[3][..], &[3]]).is_ok());
        assert!(all.at(&[&[3][..], &[1]]).is_err() && all.at(&[&[1][..], &[3]]).is_err());
        assert!(all.expect_same(&known(2), &known(3)).is_err());
    }

    #[test]
    fn bounds_are_found_where_they_are_certain() {
        let mut all = Extents::default();
        let a = all.axis(0, 0);
        let more = a.plus(&known(2)).unwrap();
        assert_eq!(all.larger(&a, &more).unwrap(), more);
        assert_eq!(all.smaller(&known(0), &a).unwrap(), known(0));
        assert!(all.smaller(&known(5), &a).unwrap().known().is_none());
        assert!(known(i64::MAX).plus(&known(1)).is_err());
    }
}
