//! The server's threads: each runs its connections to their end.
//!
//! A connection stays on its thread, so serving it takes no lock but those of the tables. The accepting
//! thread is a worker too; with one thread nothing is ever handed over.

use crate::drivers::registry::Registry;
use libdc::net::runtime::runtime;
use libdc::net::socket::Socket;
use std::future::Future;
use std::io;
use std::pin::Pin;
use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::task::{Context, Poll};
use std::thread::JoinHandle;
use tokio::runtime::Handle;
use tokio_util::sync::CancellationToken;
use tokio_util::task::TaskTracker;
use tracing::{error, warn};

/// The threads on which connections are served.
#[derive(Debug)]
pub struct Workers {
    workers: Vec<WorkerThread>,
    threads: Vec<JoinHandle<()>>,
    tasks: TaskTracker,
    stop: CancellationToken,
}

#[derive(Debug)]
struct WorkerThread {
    handle: Handle,
    load: Arc<AtomicUsize>,
}

impl Workers {
    /// Starts `threads - 1` threads beside the calling one, whose runtime is `own`.
    ///
    /// # Errors
    /// If the system refuses a thread or a runtime.
    pub fn start(own: &Handle, threads: usize) -> io::Result<Self> {
        let mut started = Self {
            workers: vec![WorkerThread { handle: own.clone(), load: Arc::default() }],
            threads: Vec::new(),
            tasks: TaskTracker::new(),
            stop: CancellationToken::new(),
        };
        for number in 1..threads {
            let runtime = runtime()?;
            let stop = started.stop.clone();
            started.workers.push(WorkerThread { handle: runtime.handle().clone(), load: Arc::default() });
            let thread = std::thread::Builder::new()
                .name(format!("worker-{number}"))
                .spawn(move || runtime.block_on(stop.cancelled()))?;
            started.threads.push(thread);
        }
        Ok(started)
    }

    /// Serves a connection on the thread that has the fewest.
    pub fn spawn<F>(&self, socket: Socket, serve: impl FnOnce(Socket) -> F + Send + Unpin + 'static)
    where
        F: Future<Output = ()> + Send + Unpin + 'static,
    {
        let workers = self.workers.iter().enumerate();
        let Some((number, worker)) = workers.min_by_key(|(_, worker)| worker.load.load(Ordering::Relaxed))
        else {
            return;
        };
        let load = LoadCount::add(&worker.load);
        if number == 0 {
            let task = LocalTask { connection: serve(socket), _load: load };
            self.tasks.spawn_on(task, &worker.handle);
            return;
        }
        match socket.detach() {
            Ok(socket) => {
                let connection = async move {
                    match socket.register() {
                        Ok(socket) => LocalTask { connection: serve(socket), _load: load }.await,
                        Err(error) => warn!(%error, "cannot serve a connection"),
                    }
                };
                self.tasks.spawn_on(connection, &worker.handle);
            }
            Err(error) => warn!(%error, "cannot hand a connection to its thread"),
        }
    }

    /// Calls `visit` with the connections of each worker, on its thread. Each worker gets one message, and no
    /// task of a connection is woken. Returns the results in the order of the workers.
    pub async fn visit<R: Send + 'static>(
        &self,
        visit: impl Fn(&mut Registry) -> R + Clone + Send + 'static,
    ) -> Vec<R> {
        let mut visits = Vec::new();
        for worker in &self.workers {
            let visit = visit.clone();
            visits.push(worker.handle.spawn(async move { Registry::with(visit) }));
        }
        let mut results = Vec::new();
        for visit in visits {
            results.extend(visit.await.ok().flatten());
        }
        results
    }

    /// Freezes all connections: when this returns no task of a connection works any more, until they are
    /// [thawed](Self::thaw).
    pub async fn freeze(&self) {
        self.visit(Registry::freeze).await;
    }

    /// Lets all connections work again.
    pub async fn thaw(&self) {
        self.visit(Registry::thaw).await;
    }

    /// Waits until all connections have ended. Cancel-safe.
    pub async fn finished(&self) {
        self.tasks.close();
        self.tasks.wait().await;
    }

    /// Ends the threads; remaining connections are dropped.
    pub fn stop(self) {
        self.stop.cancel();
        for thread in self.threads {
            if thread.join().is_err() {
                error!("a worker thread panicked");
            }
        }
    }
}

struct LoadCount(Arc<AtomicUsize>);

impl LoadCount {
    fn add(load: &Arc<AtomicUsize>) -> Self {
        load.fetch_add(1, Ordering::Relaxed);
        Self(Arc::clone(load))
    }
}

/// A connection on its thread. An `async` block would hold the connection twice.
struct LocalTask<F> {
    connection: F,
    _load: LoadCount,
}

impl<F: Future<Output = ()> + Unpin> Future for LocalTask<F> {
    type Output = ();

    fn poll(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<()> {
        Pin::new(&mut self.connection).poll(cx)
    }
}

impl Drop for LoadCount {
    fn drop(&mut self) {
        self.0.fetch_sub(1, Ordering::Relaxed);
    }
}
