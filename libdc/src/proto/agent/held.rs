//! What the local connections of the agent hold: learned from the server's answers, forgotten when it is released,
//! lost, or its lease is over.
//!
//! A lease is reckoned here from the moment of the answer, so it never ends before the server says so. What is
//! here is claimed when the link is resumed, and keeps its connection from being closed for being idle.
//!
//! Every operation takes time that grows with the logarithm of what is held. What has expired is removed a batch
//! at a time, by every grant and by the link's clock.

use crate::id::{LockKey, Token};
use crate::limits::EXPIRY_BATCH;
use crate::proto::handshake::ClaimSource;
use crate::proto::link::Link;
use crate::time::Time;
use crate::wire::link::Claim;
use std::collections::{BTreeMap, BTreeSet};

/// All that is held over the link.
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

    /// It is held no longer.
    pub(crate) fn remove(&mut self, token: Token) {
        self.unlink(token.to_bytes());
    }

    /// Nothing is held by `owner` any longer.
    pub(crate) fn remove_owner(&mut self, owner: u64) {
        while let Some((_, _, bits)) =
            self.by_owner.range((owner, Time::from_ms(0), [0; 16])..).next().copied()
            && self.held.get(&bits).is_some_and(|holding| holding.owner == owner)
        {
            self.unlink(bits);
        }
    }

    /// Whether `token` is that of `key`, as far as is known here.
    pub(crate) fn is_held(&self, key: LockKey<'_>, token: Token) -> bool {
        self.held.get(&token.to_bytes()).is_some_and(|holding| *holding.key == *key.as_str())
    }

    /// When the last lease of `owner` ends.
    pub(crate) fn held_until(&self, owner: u64) -> Option<Time> {
        let last = self.by_owner.range(..(owner + 1, Time::from_ms(0), [0; 16])).next_back()?;
        (last.0 == owner).then_some(last.1)
    }

    /// Removes what has expired, a batch of it.
    pub(crate) fn purge(&mut self, now: Time) {
        for _ in 0..EXPIRY_BATCH {
            match self.by_end.first() {
                Some((until, bits)) if *until <= now => self.unlink(*bits),
                _ => return,
            };
        }
    }

    /// How many are held or have only just expired.
    #[cfg(test)]
    pub(crate) fn len(&self) -> usize {
        assert!(self.held.len() == self.by_owner.len() && self.held.len() == self.by_end.len());
        self.held.len()
    }

    /// What is held at `now` and comes after `last`, in the order of tokens: all of it, for `last` `None`.
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
    fn what_is_held_is_claimed_until_it_is_released_or_over() {
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
    fn an_owner_holds_until_its_last_lease_ends() {
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
        assert_eq!(holdings.len(), 1, "what is not held can't be renewed");
    }

    #[test]
    fn a_key_and_a_token_belong_together() {
        let mut holdings = HeldLocks::default();
        holdings.granted(at(0), 7, "a".into(), token(1), 500);
        let key = |key| LockKey::new(key).unwrap();
        assert!(holdings.is_held(key("a"), token(1)));
        assert!(!holdings.is_held(key("b"), token(1)) && !holdings.is_held(key("a"), Token::new(1, 2)));
    }

    #[test]
    fn what_has_expired_does_not_pile_up() {
        let mut holdings = HeldLocks::default();
        for fence in 1..=1_000 {
            holdings.granted(at(fence), fence % 3, "a".into(), token(fence), 10);
        }
        assert!(holdings.len() <= 10 + EXPIRY_BATCH);
        holdings.purge(at(5_000));
        assert_eq!(holdings.len(), 0);
    }
}
