//! Set-up requests on separate connections. A few threads send the requests, each thread one at a time.

use super::worker::Order;
use crate::dialect::Aside;
use crate::publish::Http;
use mio::Waker;
use std::net::SocketAddr;
use std::sync::mpsc::{Receiver, Sender, channel};
use std::sync::{Arc, Mutex, PoisonError};

/// Number of threads for each thread of clients.
const THREADS: usize = 8;

/// Sends the requests of one worker. On drop, the threads end as soon as their requests are answered.
pub struct Asides {
    requests: Sender<(usize, Aside)>,
}

impl Asides {
    /// `orders` and `waker` belong to the worker receiving the answers.
    pub fn start(address: SocketAddr, orders: &Sender<Order>, waker: &Arc<Waker>) -> Self {
        let (requests, taken) = channel();
        let taken = Arc::new(Mutex::new(taken));
        for _ in 0..THREADS {
            let (taken, orders, waker) = (Arc::clone(&taken), orders.clone(), Arc::clone(waker));
            std::thread::spawn(move || answer(address, &taken, &orders, &waker));
        }
        Self { requests }
    }

    pub fn send(&self, client: usize, request: Aside) {
        // The threads live as long as `self`.
        let _ = self.requests.send((client, request));
    }
}

fn answer(address: SocketAddr, requests: &Mutex<Receiver<(usize, Aside)>>, orders: &Sender<Order>, waker: &Waker) {
    let mut http = Http::new(address);
    loop {
        let next = requests.lock().unwrap_or_else(PoisonError::into_inner).recv();
        let Ok((client, Aside { target, headers, body })) = next else { return };
        let outcome = match http.post(target, &headers, body.as_bytes()) {
            Ok(200..300) => Ok(()),
            Ok(status) => Err(format!("{target} answered {status}")),
            Err(error) => Err(format!("{target}: {error}")),
        };
        if orders.send(Order::Answered(client, outcome)).is_err() || waker.wake().is_err() {
            return;
        }
    }
}
