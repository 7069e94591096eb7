//! A load generator with a closed loop: README.md has its options.
use perfbench::*;
use std::collections::{HashMap, VecDeque};
use std::os::raw::c_int;

#[derive(Clone, Copy, PartialEq, Debug)]
enum Proto { Dc, Mc, Mm, Redis, Dfl, DflC, RLock, MLock, Raw }

struct Cfg {
    proto: Proto, addr: Addr, conns: usize, depth: usize, add_pct: u32, data: usize,
    prefill: u64, cap: u64, secs: f64, warm: f64, runs: usize, cpo: bool, pids: Vec<i32>,
    seed: u64, label: String, req: usize, resp: usize, linger0: bool, keys: usize, timeout_ms: u32, hold_after: f64, op: u8, fresh: bool, get_range: u64,
}

fn args() -> Cfg {
    let mut m: HashMap<String, String> = HashMap::new();
    let mut it = std::env::args().skip(1);
    while let Some(a) = it.next() {
        let k = a.trim_start_matches("--").to_string();
        match k.as_str() { "cpo" | "linger0" | "fresh" => { m.insert(k, "1".into()); } _ => { let v = it.next().unwrap_or_default(); m.insert(k, v); } }
    }
    let g = |k: &str, d: &str| m.get(k).cloned().unwrap_or(d.to_string());
    let proto = match g("proto", "dc").as_str() { "dc" => Proto::Dc, "mc" => Proto::Mc, "mcm" => Proto::Mm, "redis" => Proto::Redis, "dfl" => Proto::Dfl, "dflc" => Proto::DflC, "rlock" => Proto::RLock, "mlock" => Proto::MLock, "raw" => Proto::Raw, x => panic!("proto {x}") };
    pin(g("cpu", "-1").parse().unwrap());
    Cfg {
        proto, addr: parse_addr(&g("addr", "tcp:127.0.0.1:9001")), conns: g("conns", "1").parse().unwrap(), depth: g("depth", "1").parse().unwrap(),
        add_pct: g("add-pct", "10").parse().unwrap(), data: g("data", "180").parse().unwrap(), prefill: g("prefill", "0").parse().unwrap(),
        cap: g("cap", "1000000000").parse().unwrap(), secs: g("secs", "1").parse().unwrap(), warm: g("warm", "0.3").parse().unwrap(), runs: g("runs", "5").parse().unwrap(),
        cpo: m.contains_key("cpo"), pids: g("pids", "").split(',').filter(|s| !s.is_empty()).map(|s| s.parse().unwrap()).collect(),
        seed: g("seed", "42").parse().unwrap(), label: g("label", ""), req: g("req", "46").parse().unwrap(), resp: g("resp", "194").parse().unwrap(),
        linger0: m.contains_key("linger0"), keys: g("keys", "1").parse().unwrap(), timeout_ms: g("timeout-ms", "3600000").parse().unwrap(), hold_after: g("hold", "0").parse().unwrap(),
        op: match g("op", "mix").as_str() { "mix" => 255, "have" => 3, "get" => 1, _ => 255 }, fresh: m.contains_key("fresh"), get_range: g("get-range", "0").parse().unwrap(),
    }
}

#[derive(Clone, Copy)]
struct Inflight { t0: u64, kind: u8, slot: u32, id: u64 }
// Kinds: 0 add, 1 get, 2 remove, 3 have, 10 acquire, 11 release

struct Conn { fd: c_int, out: Vec<u8>, opos: usize, inb: Vec<u8>, ip: usize, q: VecDeque<Inflight>, want_out: bool, slots: Vec<Slot>, t_open: u64, alive: bool }
struct Slot { t0: u64, token: Vec<u8>, key: Vec<u8>, ctr: u64 }

struct W {
    c: Cfg, rng: u64, next: u64, tmpl: Vec<u8>, hist: Hist, hist2: Hist, ops: u64, adds: u64, miss: u64, errs: u64, prefilling: bool, stop: bool, uid: u32, sha: Vec<u8>,
    last_rel: Vec<u64>, raw_left: u64, phase_gate: bool, steady_hist: bool,
}

const B64: &[u8; 64] = b"ABCDEFGHIJKLMNOPQRSTUVWXYZabcdefghijklmnopqrstuvwxyz0123456789-_";
fn b64key(id: &[u8; 32], o: &mut Vec<u8>) {
    for ch in id.chunks(3) {
        let mut v = 0u32; for (i, b) in ch.iter().enumerate() { v |= (*b as u32) << (16 - 8 * i); }
        for i in 0..ch.len() + 1 { o.push(B64[((v >> (18 - 6 * i)) & 63) as usize]); }
    }
}
fn itoa(mut v: u64, o: &mut Vec<u8>) { let mut b = [0u8; 20]; let mut i = 20; loop { i -= 1; b[i] = b'0' + (v % 10) as u8; v /= 10; if v == 0 { break; } } o.extend_from_slice(&b[i..]); }

fn dc_hdr(o: &mut Vec<u8>, uid: u32, op: u8, len: usize) {
    o.extend_from_slice(&[0, 0x11, 0, 0, 0]); o.extend_from_slice(&uid.to_be_bytes()); o.extend_from_slice(&[0, op, 1]); o.extend_from_slice(&(len as u16).to_be_bytes());
}

impl W {
    #[inline] fn rnd(&mut self) -> u64 { self.rng ^= self.rng << 13; self.rng ^= self.rng >> 7; self.rng ^= self.rng << 17; self.rng }
    /// Appends a request for a slot to the output of a connection. False if there is nothing to send.
    fn gen(&mut self, cn: &mut Conn, slot: usize, t0: u64) -> bool {
        if self.stop { return false; }
        match self.c.proto {
            Proto::Dc | Proto::Mc | Proto::Mm | Proto::Redis => {
                let kind: u8;
                if self.prefilling { if self.next >= self.c.prefill { return false; } kind = 0; }
                else if self.next == 0 || (self.rnd() >> 11) % 100 < self.c.add_pct as u64 { kind = 0 } else if self.c.op != 255 { kind = self.c.op } else { kind = 1 }
                let id;
                if kind == 0 { id = self.next; self.next += 1; }
                else {
                    let guard = (self.c.conns * self.c.depth) as u64 + 1;
                    let hi = if self.next > guard * 2 { self.next - guard } else { self.next.max(1) };
                    let mut lo = hi.saturating_sub(self.c.cap);
                    if self.c.get_range > 0 { lo = hi.saturating_sub(self.c.get_range); }
                    let r = self.rnd(); id = lo + (r >> 16) % (hi - lo);
                }
                let idb = id_bytes(self.c.seed, id);
                if kind == 0 { self.tmpl[0..8].copy_from_slice(&id.to_le_bytes()); }
                let o = &mut cn.out; let n = self.c.data;
                match self.c.proto {
                    Proto::Dc => {
                        self.uid = self.uid.wrapping_add(1);
                        if kind == 0 {
                            dc_hdr(o, self.uid, 0, 8 + 32 + n); o.extend_from_slice(&self.c.timeout_ms.to_be_bytes()); o.extend_from_slice(&32u32.to_be_bytes()); o.extend_from_slice(&idb); o.extend_from_slice(&self.tmpl);
                        } else { dc_hdr(o, self.uid, kind, 32); o.extend_from_slice(&idb); }
                    }
                    Proto::Mc => {
                        if kind == 0 { o.extend_from_slice(b"add "); b64key(&idb, o); o.extend_from_slice(b" 0 3600 "); itoa(n as u64, o); o.extend_from_slice(b"\r\n"); o.extend_from_slice(&self.tmpl); o.extend_from_slice(b"\r\n"); }
                        else { o.extend_from_slice(b"get "); b64key(&idb, o); o.extend_from_slice(b"\r\n"); }
                    }
                    Proto::Mm => {
                        if kind == 0 { o.extend_from_slice(b"ms "); b64key(&idb, o); o.push(b' '); itoa(n as u64, o); o.extend_from_slice(b" ME T3600\r\n"); o.extend_from_slice(&self.tmpl); o.extend_from_slice(b"\r\n"); }
                        else { o.extend_from_slice(b"mg "); b64key(&idb, o); o.extend_from_slice(b" v\r\n"); }
                    }
                    _ => {
                        if kind == 0 {
                            o.extend_from_slice(b"*6\r\n$3\r\nSET\r\n$32\r\n"); o.extend_from_slice(&idb); o.extend_from_slice(b"\r\n$"); itoa(n as u64, o); o.extend_from_slice(b"\r\n"); o.extend_from_slice(&self.tmpl);
                            o.extend_from_slice(b"\r\n$2\r\nNX\r\n$2\r\nPX\r\n$7\r\n3600000\r\n");
                        } else { o.extend_from_slice(b"*2\r\n$3\r\nGET\r\n$32\r\n"); o.extend_from_slice(&idb); o.extend_from_slice(b"\r\n"); }
                    }
                }
                cn.q.push_back(Inflight { t0, kind, slot: slot as u32, id });
            }
            Proto::Dfl | Proto::DflC => {
                let s = &mut cn.slots[slot];
                if s.token.is_empty() {
                    s.t0 = t0;
                    if self.c.fresh { s.ctr += 1; let k = splitmix(self.rng ^ s.ctr); self.rng = self.rng.wrapping_add(1); s.key.clear(); s.key.extend_from_slice(format!("key:{:016x}", k).as_bytes()); }
                    cn.out.extend_from_slice(b"l\n"); cn.out.extend_from_slice(&s.key); cn.out.extend_from_slice(b"\n30 33\n");
                    cn.q.push_back(Inflight { t0, kind: 10, slot: slot as u32, id: 0 });
                } else {
                    cn.out.extend_from_slice(b"r\n"); cn.out.extend_from_slice(&s.key); cn.out.push(b'\n'); cn.out.extend_from_slice(&s.token); cn.out.push(b'\n');
                    cn.q.push_back(Inflight { t0, kind: 11, slot: slot as u32, id: 0 });
                    if self.c.proto == Proto::DflC { self.last_rel[slot_key(&s.key)] = t0; }
                }
            }
            Proto::RLock | Proto::MLock => {
                let redis = self.c.proto == Proto::RLock;
                let s = &mut cn.slots[slot];
                let acq = s.ctr & 1 == 0; s.ctr += 1;
                let o = &mut cn.out;
                let tok: &[u8; 32] = b"0123456789abcdef0123456789abcdef";
                if acq { s.t0 = t0; }
                if redis {
                    if acq { o.extend_from_slice(b"*6\r\n$3\r\nSET\r\n$"); itoa(s.key.len() as u64, o); o.extend_from_slice(b"\r\n"); o.extend_from_slice(&s.key); o.extend_from_slice(b"\r\n$32\r\n"); o.extend_from_slice(tok); o.extend_from_slice(b"\r\n$2\r\nNX\r\n$2\r\nPX\r\n$5\r\n33000\r\n"); }
                    else { o.extend_from_slice(b"*5\r\n$7\r\nEVALSHA\r\n$40\r\n"); o.extend_from_slice(&self.sha); o.extend_from_slice(b"\r\n$1\r\n1\r\n$"); itoa(s.key.len() as u64, o); o.extend_from_slice(b"\r\n"); o.extend_from_slice(&s.key); o.extend_from_slice(b"\r\n$32\r\n"); o.extend_from_slice(tok); o.extend_from_slice(b"\r\n"); }
                } else {
                    if acq { o.extend_from_slice(b"add "); o.extend_from_slice(&s.key); o.extend_from_slice(b" 0 33 32\r\n"); o.extend_from_slice(tok); o.extend_from_slice(b"\r\n"); }
                    else { o.extend_from_slice(b"delete "); o.extend_from_slice(&s.key); o.extend_from_slice(b"\r\n"); }
                }
                cn.q.push_back(Inflight { t0, kind: if acq { 10 } else { 11 }, slot: slot as u32, id: 0 });
            }
            Proto::Raw => { let n = self.c.req; cn.out.extend_from_slice(&self.tmpl[..n]); cn.q.push_back(Inflight { t0, kind: 1, slot: slot as u32, id: 0 }); }
        }
        true
    }
    /// Parses the response to the oldest request in flight. Returns the bytes consumed.
    fn parse(&mut self, cn: &mut Conn, now: u64) -> Option<(usize, Inflight)> {
        let b = &cn.inb[cn.ip..];
        let f = *cn.q.front()?;
        let used;
        match self.c.proto {
            Proto::Raw => { if b.len() < self.c.resp { return None; } used = self.c.resp; }
            Proto::Dc => {
                if b.len() < 14 { return None; }
                let l = u16::from_be_bytes([b[12], b[13]]) as usize;
                if b.len() < 14 + l { return None; }
                if b[4] != 1 || b[11] != 1 || b[10] != f.kind { self.errs += 1; }
                let d = &b[14..14 + l];
                match f.kind { 1 => { if l == 1 { self.miss += 1 } else if l != self.c.data || d[0..8] != f.id.to_le_bytes() { self.errs += 1 } } _ => { if l != 1 { self.errs += 1 } else if d[0] != 0 { self.miss += 1 } } }
                used = 14 + l;
            }
            Proto::Mc => {
                let nl = memchr(b, b'\n')?;
                if f.kind == 0 { used = nl + 1; if !b.starts_with(b"STORED") { self.miss += 1; } }
                else if b.starts_with(b"END") { used = nl + 1; self.miss += 1; }
                else { let tot = nl + 1 + self.c.data + 2 + 5; if b.len() < tot { return None; } if !b.starts_with(b"VALUE") || b[nl + 1..nl + 9] != f.id.to_le_bytes() || &b[tot - 5..tot] != b"END\r\n" { self.errs += 1; } used = tot; }
            }
            Proto::Mm => {
                let nl = memchr(b, b'\n')?;
                if f.kind == 0 { used = nl + 1; if !b.starts_with(b"HD") { self.miss += 1; } }
                else if b.starts_with(b"EN") { used = nl + 1; self.miss += 1; }
                else { let tot = nl + 1 + self.c.data + 2; if b.len() < tot { return None; } if !b.starts_with(b"VA ") || b[nl + 1..nl + 9] != f.id.to_le_bytes() { self.errs += 1; } used = tot; }
            }
            Proto::Redis => {
                let nl = memchr(b, b'\n')?;
                if b[0] == b'+' { used = nl + 1; }
                else if b[0] == b'$' { if b[1] == b'-' { used = nl + 1; self.miss += 1; } else { let tot = nl + 1 + self.c.data + 2; if b.len() < tot { return None; } if b[nl + 1..nl + 9] != f.id.to_le_bytes() { self.errs += 1; } used = tot; } }
                else { used = nl + 1; self.errs += 1; }
            }
            Proto::Dfl | Proto::DflC => {
                let nl = memchr(b, b'\n')?; used = nl + 1;
                let s = &mut cn.slots[f.slot as usize];
                if f.kind == 10 {
                    if b.starts_with(b"ok ") { let e = memchr(&b[3..], b' ').unwrap_or(nl - 3); s.token.clear(); s.token.extend_from_slice(&b[3..3 + e]);
                        if self.c.proto == Proto::DflC { let k = slot_key(&s.key); if self.last_rel[k] > 0 { self.hist2.add(now.saturating_sub(self.last_rel[k])); self.last_rel[k] = 0; } self.ops += 1; self.hist.add(now - s.t0); }
                    } else { self.miss += 1; if self.miss < 3 { eprintln!("acq resp {:?}", String::from_utf8_lossy(&b[..nl])); } }
                } else { if !b.starts_with(b"ok") { self.errs += 1; if self.errs < 3 { eprintln!("rel resp {:?}", String::from_utf8_lossy(&b[..nl])); } } s.token.clear(); if self.c.proto == Proto::Dfl { self.ops += 1; self.hist.add(now - s.t0); } }
                return Some((used, f));
            }
            Proto::RLock | Proto::MLock => {
                let nl = memchr(b, b'\n')?; used = nl + 1;
                let good = match (self.c.proto, f.kind) { (Proto::RLock, 10) => b[0] == b'+', (Proto::RLock, _) => b.starts_with(b":1"), (_, 10) => b.starts_with(b"STORED"), _ => b.starts_with(b"DELETED") };
                if !good { self.errs += 1; if self.errs < 3 { eprintln!("lock resp {:?}", String::from_utf8_lossy(&b[..nl])); } }
                if f.kind == 11 { self.ops += 1; self.hist.add(now - cn.slots[f.slot as usize].t0); }
                return Some((used, f));
            }
        }
        self.ops += 1; if f.kind == 0 { self.adds += 1; }
        self.hist.add(now - f.t0);
        Some((used, f))
    }
}
fn slot_key(k: &[u8]) -> usize { let mut v = 0usize; for b in k.iter().skip(2) { v = v * 10 + (*b - b'0') as usize; } v }
#[inline] fn memchr(b: &[u8], c: u8) -> Option<usize> { unsafe { let p = libc::memchr(b.as_ptr() as *const _, c as i32, b.len()); if p.is_null() { None } else { Some(p as usize - b.as_ptr() as usize) } } }

fn flush(ep: c_int, i: usize, cn: &mut Conn) -> bool {
    while cn.opos < cn.out.len() {
        let r = unsafe { libc::send(cn.fd, cn.out[cn.opos..].as_ptr() as *const _, cn.out.len() - cn.opos, libc::MSG_DONTWAIT | libc::MSG_NOSIGNAL) };
        if r < 0 {
            let e = errno();
            if e == libc::EAGAIN { if !cn.want_out { cn.want_out = true; ctl(ep, libc::EPOLL_CTL_MOD, cn.fd, i, true); } return true; }
            return false;
        }
        cn.opos += r as usize;
    }
    cn.out.clear(); cn.opos = 0;
    if cn.want_out { cn.want_out = false; ctl(ep, libc::EPOLL_CTL_MOD, cn.fd, i, false); }
    true
}
fn ctl(ep: c_int, op: c_int, fd: c_int, i: usize, out: bool) {
    let mut ev = libc::epoll_event { events: (libc::EPOLLIN | if out { libc::EPOLLOUT } else { 0 }) as u32, u64: i as u64 };
    unsafe { libc::epoll_ctl(ep, op, fd, &mut ev); }
}

fn open_conn(w: &mut W, ep: c_int, i: usize, cn: &mut Conn) -> bool {
    let t0 = now_ns();
    match connect(&w.c.addr, w.c.linger0) {
        Ok(fd) => { cn.fd = fd; cn.t_open = t0; cn.alive = true; cn.out.clear(); cn.opos = 0; cn.inb.clear(); cn.ip = 0; cn.q.clear(); cn.want_out = false;
            let _ = (ep, i); true }
        Err(e) => { w.errs += 1; if w.errs < 5 { eprintln!("connect errno {e}"); } false }
    }
}

fn main() {
    let c = args();
    let n = c.conns;
    let mut tmpl = vec![0u8; c.data.max(c.req).max(16)];
    for (i, b) in tmpl.iter_mut().enumerate() { *b = (splitmix(i as u64) & 0x3f) as u8 + 48; }
    if c.proto != Proto::Raw { tmpl.truncate(c.data); }
    let nkeys = c.keys.max(1);
    let mut w = W { rng: 0x1234567 ^ c.seed, next: 0, tmpl, hist: Hist::new(), hist2: Hist::new(), ops: 0, adds: 0, miss: 0, errs: 0, prefilling: c.prefill > 0, stop: false, uid: 0, sha: vec![], last_rel: vec![0; nkeys], raw_left: 0, phase_gate: false, steady_hist: true, c };
    let _ = (w.raw_left, w.phase_gate, w.steady_hist);
    if w.c.proto == Proto::RLock {
        let fd = connect(&w.c.addr, false).unwrap();
        let script = "if redis.call('get',KEYS[1])==ARGV[1] then return redis.call('del',KEYS[1]) else return 0 end";
        let s = format!("*3\r\n$6\r\nSCRIPT\r\n$4\r\nLOAD\r\n${}\r\n{}\r\n", script.len(), script);
        unsafe { libc::send(fd, s.as_ptr() as *const _, s.len(), 0); let mut b = [0u8; 128]; let r = libc::recv(fd, b.as_mut_ptr() as *mut _, 128, 0); assert!(r >= 45, "script load"); w.sha = b[5..45].to_vec(); libc::close(fd); }
    }
    let ep = unsafe { libc::epoll_create1(0) };
    let mut cs: Vec<Conn> = Vec::new();
    for i in 0..n {
        let slots = (0..w.c.depth).map(|s| Slot { t0: 0, token: vec![], ctr: 0, key: match w.c.proto { Proto::DflC => format!("k:{}", i % nkeys).into_bytes(), _ => format!("key:{}:{}:{}", w.c.seed, i, s).into_bytes() } }).collect();
        let mut cn = Conn { fd: -1, out: Vec::with_capacity(4096), opos: 0, inb: Vec::with_capacity(4096), ip: 0, q: VecDeque::new(), want_out: false, slots, t_open: 0, alive: false };
        if !w.c.cpo { for _try in 0..50 { if open_conn(&mut w, ep, i, &mut cn) { break; } std::thread::sleep(std::time::Duration::from_millis(20)); } assert!(cn.alive, "cannot connect"); ctl(ep, libc::EPOLL_CTL_ADD, cn.fd, i, false); }
        cs.push(cn);
    }
    let cpo = w.c.cpo;
    macro_rules! start_cpo { ($i:expr) => {{ let cn = &mut cs[$i]; let mut ok = false; for _ in 0..200 { if open_conn(&mut w, ep, $i, cn) { ok = true; break; } std::thread::sleep(std::time::Duration::from_micros(200)); } if !ok { eprintln!("giving up on slot"); } else { let t0 = cn.t_open; if w.gen(cn, 0, t0) { flush(ep, $i, cn); ctl(ep, libc::EPOLL_CTL_ADD, cn.fd, $i, false); } else { unsafe { libc::close(cn.fd); } cn.alive = false; } } }}; }
    macro_rules! kick { () => {{ for i in 0..n { if cpo { start_cpo!(i); } else { let t = now_ns(); let d = w.c.depth; let cn = &mut cs[i]; for s in 0..d { w.gen(cn, s, t); } flush(ep, i, cn); } } }}; }
    let mut evs: Vec<libc::epoll_event> = vec![unsafe { std::mem::zeroed() }; 512];
    let mut rbuf = vec![0u8; 1 << 18];
    let mut done_runs = 0usize;
    let mut measuring = false; let mut t_next = 0u64; let mut t_start = 0u64; let mut cpu0 = Cpu::default(); let mut each0: Vec<u64> = vec![]; let mut me0 = Cpu::default(); let mut st0 = 0u64;
    let mypid = vec![std::process::id() as i32];
    let mut pf_t0 = now_ns(); let _ = &mut pf_t0;
    kick!();
    if !w.prefilling { t_next = now_ns() + (w.c.warm * 1e9) as u64; }
    let mut last_progress = now_ns(); let mut last_ops = 0u64;
    loop {
        let ne = unsafe { libc::epoll_wait(ep, evs.as_mut_ptr(), 512, 100) };
        let mut now = now_ns();
        for k in 0..ne.max(0) as usize {
            let i = evs[k].u64 as usize; let fl = evs[k].events;
            let mut reopen = false;
            {
                let cn = &mut cs[i];
                if !cn.alive { continue; }
                if fl & libc::EPOLLOUT as u32 != 0 { flush(ep, i, cn); }
                if fl & (libc::EPOLLIN | libc::EPOLLHUP | libc::EPOLLERR) as u32 != 0 {
                    let r = unsafe { libc::recv(cn.fd, rbuf.as_mut_ptr() as *mut _, rbuf.len(), libc::MSG_DONTWAIT) };
                    now = now_ns();
                    if r == 0 || (r < 0 && errno() != libc::EAGAIN) {
                        w.errs += 1; if w.errs < 5 { eprintln!("conn {} closed by peer r={} errno={} inflight={}", i, r, errno(), cn.q.len()); }
                        unsafe { libc::close(cn.fd); } cn.alive = false; reopen = cpo;
                        if !cpo && w.errs > 1000 { eprintln!("too many errors"); std::process::exit(2); }
                    } else if r > 0 {
                        cn.inb.extend_from_slice(&rbuf[..r as usize]);
                        while let Some((used, f)) = w.parse(cn, now) {
                            cn.ip += used; cn.q.pop_front();
                            if cpo { unsafe { libc::close(cn.fd); } cn.alive = false; reopen = true; break; }
                            w.gen(cn, f.slot as usize, now);
                        }
                        if cn.ip == cn.inb.len() { cn.inb.clear(); cn.ip = 0; } else if cn.ip > 1 << 20 { cn.inb.drain(..cn.ip); cn.ip = 0; }
                        if !cn.out.is_empty() && cn.alive && !cn.want_out { flush(ep, i, cn); }
                    }
                }
            }
            if reopen && !w.stop && !(w.prefilling && w.next >= w.c.prefill) { start_cpo!(i); }
        }
        if now - last_progress > 5_000_000_000 { if w.ops == last_ops && !w.prefilling { eprintln!("{{\"label\":\"{}\",\"stalled\":true}}", w.c.label); std::process::exit(3); } last_progress = now; last_ops = w.ops; }
        if w.prefilling {
            if w.ops >= w.c.prefill || (w.next >= w.c.prefill && cs.iter().all(|c| c.q.is_empty())) {
                let dt = (now_ns() - pf_t0) as f64 / 1e9;
                let cp = proc_cpu(&w.c.pids);
                eprintln!("# prefill {} in {:.2}s miss {} errs {} rss_kb {}", w.ops, dt, w.miss, w.errs, cp.rss_kb);
                w.prefilling = false; w.miss = 0; w.errs = 0; w.ops = 0; w.hist.clear();
                if w.c.runs == 0 { break; }
                kick!(); t_next = now_ns() + (w.c.warm * 1e9) as u64;
            }
            continue;
        }
        if now >= t_next {
            let c1 = proc_cpu(&w.c.pids); let m1 = proc_cpu(&mypid); let s1 = steal_ticks(); let t1 = now_ns();
            if measuring {
                let dt = (t1 - t_start) as f64 / 1e9; let ops = w.ops.max(1) as f64;
                println!("{{\"label\":\"{}\",\"ops\":{},\"ops_s\":{:.0},\"cpu_us\":{:.3},\"util\":{:.2},\"ut_pct\":{:.0},\"cs_op\":{:.3},\"cli_us\":{:.3},\"p50\":{:.1},\"p90\":{:.1},\"p99\":{:.1},\"p999\":{:.1},\"max\":{:.0},\"mean\":{:.1},\"ho_p50\":{:.1},\"ho_p99\":{:.1},\"ho_n\":{},\"adds\":{},\"miss\":{},\"errs\":{},\"steal_pct\":{:.1},\"rss_kb\":{},\"stored\":{},\"each\":{:?}}}",
                    w.c.label, w.ops, ops / dt, (c1.ns - cpu0.ns) as f64 / 1e3 / ops, (c1.ns - cpu0.ns) as f64 / 1e9 / dt,
                    100.0 * (c1.ut - cpu0.ut) as f64 / ((c1.ut - cpu0.ut + c1.st - cpu0.st).max(1)) as f64, (c1.cs - cpu0.cs) as f64 / ops, (m1.ns - me0.ns) as f64 / 1e3 / ops,
                    w.hist.q(0.5) as f64 / 1e3, w.hist.q(0.9) as f64 / 1e3, w.hist.q(0.99) as f64 / 1e3, w.hist.q(0.999) as f64 / 1e3, w.hist.max() as f64 / 1e3, w.hist.mean() / 1e3,
                    w.hist2.q(0.5) as f64 / 1e3, w.hist2.q(0.99) as f64 / 1e3, w.hist2.n(), w.adds, w.miss, w.errs, (s1 - st0) as f64 / dt / 2.0, c1.rss_kb, w.next, w.c.pids.iter().zip(each0.iter()).map(|(p, e)| ((proc_cpu(&[*p]).ns - e) as f64 / 1e3 / ops * 1e3).round() / 1e3).collect::<Vec<f64>>());
                done_runs += 1;
                if done_runs >= w.c.runs { break; }
            }
            measuring = true; w.ops = 0; w.adds = 0; w.miss = 0; w.errs = 0; w.hist.clear(); w.hist2.clear(); last_ops = u64::MAX;
            each0 = w.c.pids.iter().map(|p| proc_cpu(&[*p]).ns).collect(); cpu0 = proc_cpu(&w.c.pids); me0 = proc_cpu(&mypid); st0 = steal_ticks(); t_start = now_ns(); t_next = t_start + (w.c.secs * 1e9) as u64;
        }
    }
    // Wait for the requests in flight: dc_client in C aborts if a client leaves with one.
    w.stop = true; let end = now_ns() + 1_000_000_000;
    while now_ns() < end && cs.iter().any(|c| c.alive && !c.q.is_empty()) {
        let ne = unsafe { libc::epoll_wait(ep, evs.as_mut_ptr(), 512, 20) };
        for k in 0..ne.max(0) as usize { let i = evs[k].u64 as usize; let cn = &mut cs[i]; if !cn.alive { continue; }
            if evs[k].events & libc::EPOLLOUT as u32 != 0 { flush(ep, i, cn); }
            let r = unsafe { libc::recv(cn.fd, rbuf.as_mut_ptr() as *mut _, rbuf.len(), libc::MSG_DONTWAIT) };
            if r == 0 || (r < 0 && errno() != libc::EAGAIN) { cn.alive = false; unsafe { libc::close(cn.fd); } continue; }
            if r > 0 { cn.inb.extend_from_slice(&rbuf[..r as usize]); while let Some((used, _)) = w.parse(cn, now_ns()) { cn.ip += used; cn.q.pop_front(); } } } }
    if w.c.hold_after > 0.0 { std::thread::sleep(std::time::Duration::from_secs_f64(w.c.hold_after)); }
}
