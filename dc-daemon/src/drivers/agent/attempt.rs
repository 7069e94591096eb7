//! Attempts to open a link: connecting, serving the link until it ends, and logging both.

use super::AgentDriver;
use super::link::LinkFailure;
use libdc::net::address::Address;
use libdc::net::connect::connect;
use libdc::net::socket::Socket;
use libdc::net::timer::Timer;
use libdc::proto::agent::multiplexer::LinkCloseReason;
use libdc::proto::link::{LinkError, LinkState};
use libdc::proto::reconnect::LinkLoss;
use libdc::time::Time;
use std::future::poll_fn;
use std::io;
use tracing::{debug, info, warn};

impl AgentDriver {
    /// Attempts to open the link, and serves it until it ends. Returns the time of the next attempt; `None`
    /// if the agent shuts down.
    pub(super) async fn attempt(&self, upstream: &Address) -> Option<Time> {
        let failure = match self.connect(upstream).await {
            Ok((socket, probe_id)) => self.serve_link(upstream, socket, &probe_id).await,
            Err(failure) => failure,
        };
        let was_up = self.is_up.send_if_modified(|is_up| std::mem::replace(is_up, false));
        let loss = match failure {
            LinkFailure::Closed(LinkCloseReason::Error(LinkError::GoAway)) => LinkLoss::GoAway,
            _ => LinkLoss::Lost,
        };
        let next = {
            let now = self.clock.now();
            let mut core = self.lock();
            if was_up || core.reconnect.is_new_error(&failure.to_string()) {
                log_failure(upstream, &failure, was_up);
            } else {
                debug!(server = %upstream, "{failure}");
            }
            let held_grace_ms = core.multiplexer.held_grace_ms(now);
            core.reconnect.set_held_grace_ms(held_grace_ms);
            core.reconnect.link_lost(now, loss, getrandom::u64().unwrap_or_default())
        };
        self.attempted.notify_one();
        next
    }

    async fn connect(&self, upstream: &Address) -> Result<(Socket, [u8; 32]), LinkFailure> {
        let mut socket = connect(upstream, self.connect_timeout).await?;
        if let Some(tls) = &self.tls {
            socket = tls.connect(socket, upstream, self.connect_timeout).await?;
        }
        let mut probe_id = [0; 32];
        getrandom::fill(&mut probe_id).map_err(io::Error::other)?;
        Ok((socket, probe_id))
    }

    async fn serve_link(&self, upstream: &Address, mut socket: Socket, probe_id: &[u8; 32]) -> LinkFailure {
        self.lock().multiplexer.link_connected(self.clock.now(), probe_id);
        let link = OpenLink { agent: self };
        let mut timer = Timer::default();
        let mut is_up = false;
        let failure = poll_fn(|cx| {
            let mut core = self.lock();
            let poll = core.poll_link(cx, &self.clock, &mut socket, &mut timer);
            if !is_up && let LinkState::Up { patch_level } = core.multiplexer.link_phase() {
                is_up = true;
                let outage_ms = core.reconnect.link_up(self.clock.now());
                info!(server = %upstream, patch_level, outage_ms, "the link is up");
                self.is_up.send_replace(true);
                self.attempted.notify_one();
            }
            poll
        });
        let failure = failure.await;
        drop(link);
        failure
    }
}

fn log_failure(server: &Address, failure: &LinkFailure, was_up: bool) {
    match failure {
        LinkFailure::Closed(LinkCloseReason::Left) => info!(%server, "the link has ended"),
        LinkFailure::Closed(LinkCloseReason::Error(LinkError::GoAway)) => {
            info!(%server, "the link is made anew: {failure}");
        }
        _ if was_up => warn!(%server, "the link is lost: {failure}; requests are answered DISCONNECTED"),
        _ => warn!(%server, "{failure}; requests are answered DISCONNECTED"),
    }
}

/// A link that is open. When it is dropped, requests in flight are answered DISCONNECTED.
struct OpenLink<'a> {
    agent: &'a AgentDriver,
}

impl Drop for OpenLink<'_> {
    fn drop(&mut self) {
        self.agent.lock().close_link(self.agent.clock.now());
    }
}
