//! A background task that ends with its owner.

use std::future::Future;
use tokio::task::JoinHandle;

pub struct Task<T = ()>(pub JoinHandle<T>);

impl Task {
    pub fn spawn(future: impl Future<Output = ()> + Send + 'static) -> Self {
        Self(tokio::spawn(future))
    }
}

impl<T> Drop for Task<T> {
    fn drop(&mut self) {
        self.0.abort();
    }
}
