//! Limit on the number of things held at once. A [`Place`] is held for each of them.

use prometheus::IntGauge;

/// A number of places. The number taken is also a metric. Clones share the count.
#[derive(Clone)]
pub struct Places {
    limit: i64,
    taken: IntGauge,
}

impl Places {
    /// `taken`: a gauge for these places alone, 0 at first.
    pub fn new(limit: usize, taken: IntGauge) -> Self {
        Self { limit: i64::try_from(limit).unwrap_or(i64::MAX), taken }
    }

    /// `None` if all places are taken. Of two concurrent calls for the last place, both may be refused.
    pub fn take(&self) -> Option<Place> {
        self.taken.inc();
        let place = Place(self.taken.clone());
        (self.taken.get() <= self.limit).then_some(place)
    }
}

/// A taken place, given back by drop.
pub struct Place(IntGauge);

impl Drop for Place {
    fn drop(&mut self) {
        self.0.dec();
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
