//! The locks held by the local connections of the agent: learned from the answers of the server, forgotten
//! when they are released, lost or expired.
//!
//! A lease counts here from its answer, so it never ends before it does at the server. The locks are claimed
//! when the link is resumed. A connection that holds locks is not idle.
//!
//! Every operation takes time logarithmic in the number of held locks. Expired locks are removed in batches,
//! by each grant and by the timeouts of the link.

use crate::id::{LockKey, Token};
use crate::limits::EXPIRY_BATCH;
use crate::proto::handshake::ClaimSource;
use crate::proto::link::Link;
use crate::time::Time;
use crate::wire::link::Claim;
use std::collections::{BTreeMap, BTreeSet};

/// All locks held over the link.
#[derive(Debug, Default)]
pub(crate) struct HeldLocks {
    /// By token.
    held: BTreeMap<TokenBits, HeldLock>,
    by_owner: BTreeSet<(u64, Time, TokenBits)>,
    by_end: BTreeSet<(Time, TokenBits)>,
}

#[derive(Debug)]
struct HeldLock {
    owner: u64,
    key: Box<str>,
    until: Time,
}

/// A token in the order of its fence.
type TokenBits = [u8; Token::BYTES];

impl HeldLocks {
    /// A lock was granted to `owner`.
    pub(crate) fn granted(&mut self, now: Time, owner: u64, key: Box<str>, token: Token, lease_ms: u64) {
        self.purge(now);
        self.remove(token);
        let (bits, until) = (token.to_bytes(), now.after_ms(lease_ms));
        self.held.insert(bits, HeldLock { owner, key, until });
        self.by_owner.insert((owner, until, bits));
        self.by_end.insert((until, bits));
    }

    /// A lease was renewed.
    pub(crate) fn renewed(&mut self, now: Time, token: Token, lease_ms: u64) {
        let bits = token.to_bytes();
        if let Some(HeldLock { owner, key, .. }) = self.unlink(bits) {
            self.granted(now, owner, key, token, lease_ms);
        }
    }

    /// A lock is not held any more.
    pub(crate) fn remove(&mut self, token: Token) {
        self.unlink(token.to_bytes());
    }

    /// `owner` is gone.
    pub(crate) fn remove_owner(&mut self, owner: u64) {
        while let Some((_, _, bits)) =
            self.by_owner.range((owner, Time::from_ms(0), [0; 16])..).next().copied()
            && self.held.get(&bits).is_some_and(|holding| holding.owner == owner)
        {
            self.unlink(bits);
        }
    }

    /// Whether `token` is known to be the token of `key`.
    pub(crate) fn is_held(&self, key: LockKey<'_>, token: Token) -> bool {
        self.held.get(&token.to_bytes()).is_some_and(|holding| *holding.key == *key.as_str())
    }

    /// When the last lease of `owner` ends.
    pub(crate) fn held_until(&self, owner: u64) -> Option<Time> {
        let last = self.by_owner.range(..(owner + 1, Time::from_ms(0), [0; 16])).next_back()?;
        (last.0 == owner).then_some(last.1)
    }

    /// Removes a batch of expired locks.
    pub(crate) fn purge(&mut self, now: Time) {
        for _ in 0..EXPIRY_BATCH {
            match self.by_end.first() {
                Some((until, bits)) if *until <= now => self.unlink(*bits),
                _ => return,
            };
        }
    }

    /// Locks that are held or have only just expired.
    #[cfg(test)]
    pub(crate) fn len(&self) -> usize {
        assert!(self.held.len() == self.by_owner.len() && self.held.len() == self.by_end.len());
        self.held.len()
    }

    /// The locks held at `now` whose tokens follow `last`, in the order of tokens; all of them if it is
    /// `None`.
    pub(crate) fn claims(&self, now: Time, last: Option<Token>) -> impl Iterator<Item = Claim<'_>> {
        // No token has a fence of 0.
        let last = last.map_or([0; Token::BYTES], Token::to_bytes);
        let after = (std::ops::Bound::Excluded(last), std::ops::Bound::Unbounded);
        self.held.range(after).filter(move |(_, holding)| holding.until > now).filter_map(
            |(bits, holding)| {
                let key = LockKey::new(&holding.key)?;
                Some(Claim { owner: holding.owner, token: Token::from_bytes(*bits), key })
            },
        )
    }

    fn unlink(&mut self, bits: TokenBits) -> Option<HeldLock> {
        let holding = self.held.remove(&bits)?;
        self.by_owner.remove(&(holding.owner, holding.until, bits));
        self.by_end.remove(&(holding.until, bits));
        Some(holding)
    }
}

impl ClaimSource for HeldLocks {
    type Id = TokenBits;

    fn claims_after(
        &self,
        now: Time,
        last: Option<TokenBits>,
    ) -> impl Iterator<Item = (TokenBits, Claim<'_>)> {
        self.claims(now, last.map(Token::from_bytes)).map(|claim| (claim.token.to_bytes(), claim))
    }

    fn claim_answered(&mut self, _now: Time, bits: TokenBits, is_held: bool) {
        if !is_held {
            self.unlink(bits);
        }
    }
}

impl<P> Link<HeldLocks, P> {
    /// An owner is gone: its locks are claimed no more, and a server that knows it releases them.
    pub(crate) fn detach(&mut self, now: Time, owner: u64) {
        self.held.remove_owner(owner);
        if self.owner_gone(owner) {
            self.send_detach(now, owner);
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn token(fence: u64) -> Token {
        Token::new(fence, 0xabcd)
    }

    fn at(ms: u64) -> Time {
        Time::from_ms(ms)
    }

    fn claimed(holdings: &HeldLocks, now: u64, last: Option<Token>) -> Vec<(u64, u64, String)> {
        let claims = holdings.claims(at(now), last);
        claims.map(|claim| (claim.owner, claim.token.fence(), claim.key.to_string())).collect()
    }

    #[test]
    fn held_lock_is_claimed_until_released_or_expired() {
        let mut holdings = HeldLocks::default();
        holdings.granted(at(0), 1, "a".into(), token(1), 100);
        holdings.granted(at(0), 1, "b".into(), token(2), 200);
        holdings.granted(at(0), 2, "a".into(), token(3), 300);
        let all = [(1, 1, "a".into()), (1, 2, "b".into()), (2, 3, "a".into())];
        assert_eq!(claimed(&holdings, 99, None), all);
        assert_eq!(claimed(&holdings, 100, None), all[1..]);
        assert_eq!(claimed(&holdings, 0, Some(token(1))), all[1..]);
        holdings.remove(token(2));
        holdings.remove(token(2));
        assert_eq!(claimed(&holdings, 100, None), all[2..]);
        assert_eq!(claimed(&holdings, 300, None), []);
    }

    #[test]
    fn held_until_is_the_end_of_the_owners_last_lease() {
        let mut holdings = HeldLocks::default();
        holdings.granted(at(0), 7, "a".into(), token(1), 500);
        holdings.granted(at(0), 7, "b".into(), token(2), 200);
        holdings.granted(at(0), 8, "c".into(), token(3), 900);
        assert_eq!(holdings.held_until(7), Some(at(500)));
        holdings.renewed(at(100), token(2), 700);
        assert_eq!(holdings.held_until(7), Some(at(800)));
        holdings.remove(token(2));
        assert_eq!(holdings.held_until(7), Some(at(500)));
        holdings.remove_owner(7);
        assert_eq!((holdings.held_until(7), holdings.held_until(8)), (None, Some(at(900))));
        assert_eq!((holdings.held_until(6), holdings.len()), (None, 1));
        holdings.renewed(at(100), token(1), 700);
        assert_eq!(holdings.len(), 1, "a lock that is not held cannot be renewed");
    }

    #[test]
    fn token_is_held_with_its_own_key_only() {
        let mut holdings = HeldLocks::default();
        holdings.granted(at(0), 7, "a".into(), token(1), 500);
        let key = |key| LockKey::new(key).unwrap();
        assert!(holdings.is_held(key("a"), token(1)));
        assert!(!holdings.is_held(key("b"), token(1)) && !holdings.is_held(key("a"), Token::new(1, 2)));
    }

    #[test]
    fn expired_locks_do_not_accumulate() {
        let mut holdings = HeldLocks::default();
        for fence in 1..=1_000 {
            holdings.granted(at(fence), fence % 3, "a".into(), token(fence), 10);
        }
        assert!(holdings.len() <= 10 + EXPIRY_BATCH);
        holdings.purge(at(5_000));
        assert_eq!(holdings.len(), 0);
    }
}
