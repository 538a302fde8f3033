//! How many of something there may be at once: each holds a [`Place`] for as long as it lives.

use prometheus::IntGauge;

/// So many places, and how many are taken, which is a metric at the same time. Clones share the count.
#[derive(Clone)]
pub struct Places {
    limit: i64,
    taken: IntGauge,
}

impl Places {
    /// `taken` counts nothing else and starts at 0.
    pub fn new(limit: usize, taken: IntGauge) -> Self {
        Self { limit: i64::try_from(limit).unwrap_or(i64::MAX), taken }
    }

    /// `None` where all are taken. Those who come at the very same moment for the last one may both be refused.
    pub fn take(&self) -> Option<Place> {
        self.taken.inc();
        let place = Place(self.taken.clone());
        (self.taken.get() <= self.limit).then_some(place)
    }
}

/// Given back by its drop.
pub struct Place(IntGauge);

impl Drop for Place {
    fn drop(&mut self) {
        self.0.dec();
    }
}

#[cfg(test)]
impl Place {
    /// One of many.
    pub fn any() -> Option<Self> {
        Places::new(1, IntGauge::new("taken", "for a test").unwrap()).take()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn places_are_given_back() {
        let taken = IntGauge::new("taken", "for a test").unwrap();
        let places = Places::new(2, taken.clone());
        let (first, second) = (places.take(), places.take());
        assert!(first.is_some() && second.is_some() && places.take().is_none());
        assert_eq!(taken.get(), 2);
        drop(first);
        assert!(places.clone().take().is_some());
        drop(second);
        assert_eq!(taken.get(), 0);
    }
}
