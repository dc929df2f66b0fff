//! A thread for calls that block: of a C library, or of an HTTP client without a runtime. One after the other, in the order
//! in which they were asked for.

use std::sync::mpsc;
use std::{fmt, thread};

use futures_channel::oneshot;

use crate::error::KeeperError;

type Job<S> = Box<dyn FnOnce(&mut S) + Send>;

/// Clones share the thread; it ends when the last of them is dropped and its work is done.
pub(crate) struct Worker<S> {
    jobs: mpsc::Sender<Job<S>>,
}

impl<S> Clone for Worker<S> {
    fn clone(&self) -> Self {
        Worker { jobs: self.jobs.clone() }
    }
}

impl<S> fmt::Debug for Worker<S> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("Worker(..)")
    }
}

impl<S: Send + 'static> Worker<S> {
    /// Starts the thread with what it works on.
    pub(crate) fn start(name: &str, mut state: S) -> Result<Self, KeeperError> {
        let (jobs, waiting) = mpsc::channel::<Job<S>>();
        let work = move || waiting.iter().for_each(|job| job(&mut state));
        thread::Builder::new().name(name.to_owned()).spawn(work).map_err(|_| KeeperError::Io)?;
        Ok(Worker { jobs })
    }

    /// Has something done that nobody waits for; false where the thread has ended.
    pub(crate) fn post(&self, job: impl FnOnce(&mut S) + Send + 'static) -> bool {
        self.jobs.send(Box::new(job)).is_ok()
    }

    /// Has something done. It is done to its end even where the caller does not wait for it.
    pub(crate) async fn run<T: Send + 'static>(
        &self,
        job: impl FnOnce(&mut S) -> Result<T, KeeperError> + Send + 'static,
    ) -> Result<T, KeeperError> {
        let (done, answer) = oneshot::channel();
        let job: Job<S> = Box::new(move |state| {
            // Nobody may wait any more.
            drop(done.send(job(state)));
        });
        self.jobs.send(job).map_err(|_| KeeperError::Io)?;
        answer.await.map_err(|_| KeeperError::Io)?
    }
}

#[cfg(test)]
mod tests {
    use super::Worker;
    use crate::error::KeeperError;

    #[test]
    fn what_nobody_waits_for_is_done_all_the_same_and_in_order() {
        let worker = Worker::start("test", Vec::new()).unwrap();
        let push = |n: u32| {
            worker.run(move |all: &mut Vec<u32>| {
                all.push(n);
                Ok(())
            })
        };
        pollster::block_on(async {
            push(1).await.unwrap();
            {
                let mut abandoned = Box::pin(push(2));
                let _ = futures_poll(abandoned.as_mut());
            }
            push(3).await.unwrap();
            assert_eq!(worker.run(|all| Ok(all.clone())).await.unwrap(), [1, 2, 3]);
        });
    }

    #[test]
    fn a_panic_is_an_error_for_all_that_come_after() {
        let worker = Worker::start("test", ()).unwrap();
        let panics = worker.run(|()| -> Result<(), _> { std::panic::resume_unwind(Box::new(())) });
        assert_eq!(pollster::block_on(panics), Err(KeeperError::Io));
        assert_eq!(pollster::block_on(worker.run(|()| Ok(()))), Err(KeeperError::Io));
    }

    fn futures_poll<F: Future>(task: std::pin::Pin<&mut F>) -> std::task::Poll<F::Output> {
        task.poll(&mut std::task::Context::from_waker(std::task::Waker::noop()))
    }
}
