//! A way to the API server that can be lost.

use std::{
    net::{Ipv4Addr, SocketAddr},
    sync::Arc,
};

use coral_tests::hollow::Site;
use tokio::{
    io::copy_bidirectional,
    net::{TcpListener, TcpStream},
    sync::watch,
    task::JoinHandle,
};

/// How connections fare.
#[derive(Clone, Copy, Debug, Eq, PartialEq)]
pub(crate) enum Way {
    /// They pass.
    Open,
    /// Those that there are break, and new ones are closed at once.
    Cut,
}

/// A relay in front of the API server. It ends when it is dropped.
pub(crate) struct Gate {
    address: SocketAddr,
    way: Arc<watch::Sender<Way>>,
    /// Connections that began before this number changed are dead: nothing passes, and nobody is told.
    deaths: Arc<watch::Sender<usize>>,
    task: JoinHandle<()>,
}

impl Gate {
    pub(crate) async fn start(site: &Site) -> Self {
        let upstream = site.config.cluster_url.authority().unwrap().to_string();
        let listener = TcpListener::bind((Ipv4Addr::LOCALHOST, 0)).await.unwrap();
        let address = listener.local_addr().unwrap();
        let way = Arc::new(watch::Sender::new(Way::Open));
        let deaths = Arc::new(watch::Sender::new(0));
        let task = tokio::spawn(accept(listener, upstream, Arc::clone(&way), Arc::clone(&deaths)));
        Self {
            address,
            way,
            deaths,
            task,
        }
    }

    /// `host:port`; the API server's certificate is good for it.
    pub(crate) fn address(&self) -> String {
        self.address.to_string()
    }

    /// When this returns after a cut, nothing passes any more.
    pub(crate) async fn set(&self, way: Way) {
        self.way.send_replace(way);
        if way == Way::Cut {
            // Every connection has a receiver as long as it passes anything on.
            self.way.closed().await;
        }
    }

    /// Lets the connections that there are go dead, as when a load balancer forgets them. New ones pass.
    pub(crate) fn kill_silently(&self) {
        self.deaths.send_modify(|deaths| *deaths += 1);
    }
}

impl Drop for Gate {
    fn drop(&mut self) {
        self.task.abort();
    }
}

async fn accept(
    listener: TcpListener,
    upstream: String,
    way: Arc<watch::Sender<Way>>,
    deaths: Arc<watch::Sender<usize>>,
) {
    // The connections end with this set, and so with the gate.
    let mut connections = tokio::task::JoinSet::new();
    while let Ok((client, _)) = listener.accept().await {
        if *way.borrow() == Way::Open {
            connections.spawn(pass(client, upstream.clone(), way.subscribe(), deaths.subscribe()));
        }
        while connections.try_join_next().is_some() {}
    }
}

async fn pass(
    mut client: TcpStream,
    upstream: String,
    mut way: watch::Receiver<Way>,
    mut deaths: watch::Receiver<usize>,
) {
    let Ok(mut server) = TcpStream::connect(&upstream).await else {
        return;
    };
    let is_dead = tokio::select! {
        _ = copy_bidirectional(&mut client, &mut server) => false,
        _ = way.wait_for(|way| *way == Way::Cut) => false,
        _ = deaths.changed() => true,
    };
    if is_dead {
        drop(way);
        // Both ends stay open until the gate goes.
        std::future::pending::<()>().await;
    }
}
