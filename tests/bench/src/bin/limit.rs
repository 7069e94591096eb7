//! The least that a server can do here: epoll, no runtime.
//!
//! - `limit --listen tcp:127.0.0.1:P|unix:/p --mode echo|fixed:REQ:RESP|map|mapf --threads 1|2 [--cap N]`
//! - `limit --mode proxy --listen unix:/p --up tcp:127.0.0.1:P`
//! - `limit --mode locks --listen ...` (line protocol of dflockd: only `l` and `r`, waiters in FIFO order)
use perfbench::*;
use std::collections::{HashMap, VecDeque};
use std::os::raw::c_int;
use std::sync::{Arc, Mutex};

enum Mode { Echo, Fixed(usize, usize), Map, Locks }

trait Store: Send { fn get(&self, k: &[u8], out: &mut Vec<u8>) -> bool; fn add(&mut self, k: &[u8], v: &[u8], exp: u64) -> bool; fn del(&mut self, k: &[u8]) -> bool; fn has(&self, k: &[u8]) -> bool; }
struct MapStore<S> { m: HashMap<Box<[u8]>, (u64, Box<[u8]>), S>, fifo: VecDeque<Box<[u8]>>, cap: usize }
impl<S: std::hash::BuildHasher + Send> Store for MapStore<S> {
    fn get(&self, k: &[u8], out: &mut Vec<u8>) -> bool { match self.m.get(k) { Some((_, v)) => { out.extend_from_slice(v); true } None => false } }
    fn has(&self, k: &[u8]) -> bool { self.m.contains_key(k) }
    fn add(&mut self, k: &[u8], v: &[u8], exp: u64) -> bool {
        if self.m.contains_key(k) { return false; }
        if self.m.len() >= self.cap { while let Some(o) = self.fifo.pop_front() { if self.m.remove(&o).is_some() { break; } } }
        let kb: Box<[u8]> = k.into();
        if self.cap < usize::MAX { self.fifo.push_back(kb.clone()); }
        self.m.insert(kb, (exp, v.into())); true
    }
    fn del(&mut self, k: &[u8]) -> bool { self.m.remove(k).is_some() }
}
const SH: usize = 16;
struct Shared { sh: Vec<Mutex<Box<dyn Store>>>, locked: bool }
impl Shared {
    fn with<R>(&self, k: &[u8], f: impl FnOnce(&mut dyn Store) -> R) -> R {
        let i = if self.sh.len() == 1 { 0 } else { k.get(7).map(|b| *b as usize % SH).unwrap_or(0) };
        let _ = self.locked; let mut g = self.sh[i].lock().unwrap(); f(&mut **g)
    }
}
struct Conn { inb: Vec<u8>, out: Vec<u8>, op: usize, carry: usize }
struct LockSt { holder: Option<c_int>, q: VecDeque<c_int> }

fn dc_process(st: &Shared, inb: &[u8], out: &mut Vec<u8>, clock: u64) -> usize {
    let mut p = 0;
    loop {
        let b = &inb[p..];
        if b.len() < 14 { return p; }
        let l = u16::from_be_bytes([b[12], b[13]]) as usize;
        if b.len() < 14 + l { return p; }
        if b[0..4] != [0, 0x11, 0, 0] || b[4] != 0 || b[9] != 0 || b[11] != 1 { return usize::MAX; }
        let d = &b[14..14 + l]; let h = out.len();
        out.extend_from_slice(&b[0..14]); out[h + 4] = 1;
        match b[10] {
            0 => { if l < 9 { return usize::MAX; } let ms = u32::from_be_bytes([d[0], d[1], d[2], d[3]]) as u64; let il = u32::from_be_bytes([d[4], d[5], d[6], d[7]]) as usize; if il + 8 > l { return usize::MAX; }
                let (k, v) = d[8..].split_at(il); let ok = st.with(k, |s| s.add(k, v, clock + ms)); out.push(if ok { 0 } else { 101 }); }
            1 => { if !st.with(d, |s| s.get(d, out)) { out.push(1) } }
            2 => { let r = st.with(d, |s| s.del(d)); out.push(!r as u8) }
            3 => { let r = st.with(d, |s| s.has(d)); out.push(!r as u8) }
            _ => return usize::MAX,
        }
        let n = (out.len() - h - 14) as u16; out[h + 12..h + 14].copy_from_slice(&n.to_be_bytes());
        p += 14 + l;
    }
}

struct Th { ep: c_int, conns: Vec<Option<Box<Conn>>>, rbuf: Vec<u8> }

fn ctl(ep: c_int, op: c_int, fd: c_int, evs: u32) { let mut e = libc::epoll_event { events: evs, u64: fd as u64 }; unsafe { libc::epoll_ctl(ep, op, fd, &mut e); } }

fn flush(ep: c_int, fd: c_int, c: &mut Conn) -> bool {
    while c.op < c.out.len() {
        let r = unsafe { libc::send(fd, c.out[c.op..].as_ptr() as *const _, c.out.len() - c.op, libc::MSG_DONTWAIT | libc::MSG_NOSIGNAL) };
        if r < 0 { if errno() == libc::EAGAIN { ctl(ep, libc::EPOLL_CTL_MOD, fd, (libc::EPOLLIN | libc::EPOLLOUT) as u32); return true; } return false; }
        c.op += r as usize;
    }
    let was = c.op; c.out.clear(); c.op = 0; let _ = was; true
}

struct LockTab { m: HashMap<Vec<u8>, LockSt>, ctr: u64, toks: HashMap<Vec<u8>, Vec<u8>> }
fn line<'a>(b: &'a [u8]) -> Option<(&'a [u8], usize)> { let p = unsafe { libc::memchr(b.as_ptr() as *const _, 10, b.len()) }; if p.is_null() { None } else { let n = p as usize - b.as_ptr() as usize; Some((&b[..n], n + 1)) } }
fn mktok(lt: &mut LockTab) -> [u8; 32] { lt.ctr += 1; let a = splitmix(lt.ctr); let b = splitmix(a); let mut o = [0u8; 32]; let hx = b"0123456789abcdef"; for i in 0..16 { o[i] = hx[((a >> (4 * i)) & 15) as usize]; o[16 + i] = hx[((b >> (4 * i)) & 15) as usize]; } o }

fn run_thread(id: usize, eps: Vec<c_int>, lfd: c_int, mode: Arc<Mode>, st: Arc<Shared>, tcp: bool, reg_late: bool, lazy: bool) {
    let ep = eps[id];
    let mut t = Th { ep, conns: Vec::new(), rbuf: vec![0u8; 1 << 17] };
    if id == 0 { ctl(ep, libc::EPOLL_CTL_ADD, lfd, libc::EPOLLIN as u32); }
    let mut evs: Vec<libc::epoll_event> = vec![unsafe { std::mem::zeroed() }; 256];
    let mut rr = 0usize;
    let fixed = vec![b'x'; 1 << 17];
    let mut lt = LockTab { m: HashMap::new(), ctr: 1, toks: HashMap::new() };
    let mut dirty: Vec<c_int> = vec![]; let mut newc: Vec<c_int> = vec![]; let mut old: Vec<c_int> = vec![];
    loop {
        let n = unsafe { libc::epoll_wait(ep, evs.as_mut_ptr(), 256, if old.is_empty() { -1 } else { 0 }) };
        let clock = now_ns() / 1_000_000;
        for k in 0..n.max(0) as usize {
            let fd = evs[k].u64 as c_int; let fl = evs[k].events;
            if fd == lfd {
                loop {
                    let nf = unsafe { libc::accept4(lfd, std::ptr::null_mut(), std::ptr::null_mut(), libc::SOCK_NONBLOCK | libc::SOCK_CLOEXEC) };
                    if nf < 0 { break; }
                    if tcp { set_nodelay(nf); }
                    let tgt = rr % eps.len(); rr += 1;
                    if lazy && tgt == id { let had = t.conns.get(nf as usize).is_some(); let _ = had; handle(&mut t, nf, libc::EPOLLIN as u32, &mode, &st, clock, &fixed, &mut lt, &mut dirty); if t.conns[nf as usize].is_some() { newc.push(nf); } continue; }
                    if reg_late && tgt == id { handle(&mut t, nf, libc::EPOLLIN as u32, &mode, &st, clock, &fixed, &mut lt, &mut dirty); }
                    ctl(eps[tgt], libc::EPOLL_CTL_ADD, nf, libc::EPOLLIN as u32);
                }
                continue;
            }
            handle(&mut t, fd, fl, &mode, &st, clock, &fixed, &mut lt, &mut dirty);
        }
        // Lazy mode: connections answered in an earlier turn get one recv; only those still open are
        // registered.
        if lazy {
            for fd in old.drain(..) { handle(&mut t, fd, libc::EPOLLIN as u32, &mode, &st, clock, &fixed, &mut lt, &mut dirty); if t.conns[fd as usize].is_some() { ctl(ep, libc::EPOLL_CTL_ADD, fd, libc::EPOLLIN as u32); } }
            std::mem::swap(&mut old, &mut newc);
        }
        for fd in dirty.drain(..) { if let Some(Some(c)) = t.conns.get_mut(fd as usize) { if !c.out.is_empty() { flush(ep, fd, c); } } }
    }
}
#[allow(clippy::too_many_arguments)]
fn handle(t: &mut Th, fd: c_int, fl: u32, mode: &Mode, st: &Shared, clock: u64, fixed: &[u8], lt: &mut LockTab, dirty: &mut Vec<c_int>) {
    let u = fd as usize;
    if t.conns.len() <= u { t.conns.resize_with(u + 64, || None); }
    if t.conns[u].is_none() { t.conns[u] = Some(Box::new(Conn { inb: vec![], out: vec![], op: 0, carry: 0 })); }
    let mut close = false;
    {
        let c = t.conns[u].as_mut().unwrap();
        if fl & libc::EPOLLOUT as u32 != 0 { if !flush(t.ep, fd, c) { close = true; } else if c.out.is_empty() { ctl(t.ep, libc::EPOLL_CTL_MOD, fd, libc::EPOLLIN as u32); } }
        if !close && fl & !(libc::EPOLLOUT as u32) != 0 {
            let r = unsafe { libc::recv(fd, t.rbuf.as_mut_ptr() as *mut _, t.rbuf.len(), libc::MSG_DONTWAIT) };
            if r == 0 || (r < 0 && errno() != libc::EAGAIN) { close = true; }
            else if r > 0 {
                let b = &t.rbuf[..r as usize];
                match mode {
                    Mode::Echo => { c.out.extend_from_slice(b); }
                    Mode::Fixed(rq, rs) => { c.carry += b.len(); let k = c.carry / rq; c.carry -= k * rq; let mut left = k * rs; while left > 0 { let x = left.min(fixed.len()); c.out.extend_from_slice(&fixed[..x]); left -= x; } }
                    Mode::Map => {
                        if c.inb.is_empty() {
                            let u = dc_process(st, b, &mut c.out, clock);
                            if u == usize::MAX { close = true } else if u < b.len() { c.inb.extend_from_slice(&b[u..]); }
                        } else {
                            c.inb.extend_from_slice(b);
                            let u = dc_process(st, &c.inb, &mut c.out, clock);
                            if u == usize::MAX { close = true } else { c.inb.drain(..u); }
                        }
                    }
                    Mode::Locks => {
                        c.inb.extend_from_slice(b);
                        let inb = std::mem::take(&mut c.inb); let mut p = 0; let mut myout = std::mem::take(&mut c.out);
                        loop {
                            let b = &inb[p..];
                            let Some((cmd, n1)) = line(b) else { break }; let Some((key, n2)) = line(&b[n1..]) else { break }; let Some((arg, n3)) = line(&b[n1 + n2..]) else { break };
                            p += n1 + n2 + n3;
                            match cmd {
                                b"l" => {
                                    let tok = mktok(lt);
                                    let e = lt.m.entry(key.to_vec()).or_insert_with(|| LockSt { holder: None, q: VecDeque::new() });
                                    if e.holder.is_none() { e.holder = Some(fd); lt.toks.insert(key.to_vec(), tok.to_vec()); myout.extend_from_slice(b"ok "); myout.extend_from_slice(&tok); myout.extend_from_slice(b" 33\n"); }
                                    else { e.q.push_back(fd); }
                                }
                                b"r" => {
                                    if lt.toks.get(key).map(|t| t.as_slice()) == Some(arg) {
                                        myout.extend_from_slice(b"ok\n");
                                        let tok = mktok(lt);
                                        let e = lt.m.get_mut(key).unwrap();
                                        if let Some(nx) = e.q.pop_front() { e.holder = Some(nx); lt.toks.insert(key.to_vec(), tok.to_vec());
                                            if nx == fd { myout.extend_from_slice(b"ok "); myout.extend_from_slice(&tok); myout.extend_from_slice(b" 33\n"); }
                                            else if let Some(Some(o)) = t.conns.get_mut(nx as usize) { o.out.extend_from_slice(b"ok "); o.out.extend_from_slice(&tok); o.out.extend_from_slice(b" 33\n"); dirty.push(nx); } }
                                        else { lt.m.remove(key); lt.toks.remove(key); }
                                    } else { myout.extend_from_slice(b"error\n"); }
                                }
                                _ => { myout.extend_from_slice(b"error\n"); }
                            }
                        }
                        let c = t.conns[u].as_mut().unwrap();
                        c.out = myout; c.inb = inb; c.inb.drain(..p);
                    }
                }
                let c = t.conns[u].as_mut().unwrap();
                if !close && !c.out.is_empty() && !flush(t.ep, fd, c) { close = true; }
            }
        }
    }
    if close {
        if matches!(mode, Mode::Locks) {
            // The connection ends: remove its waiters, grant its locks to the next ones.
            let keys: Vec<Vec<u8>> = lt.m.iter().filter(|(_, s)| s.holder == Some(fd) || s.q.contains(&fd)).map(|(k, _)| k.clone()).collect();
            for k in keys {
                let tok = mktok(lt); let e = lt.m.get_mut(&k).unwrap(); e.q.retain(|x| *x != fd);
                if e.holder == Some(fd) { match e.q.pop_front() { Some(nx) => { e.holder = Some(nx); lt.toks.insert(k.clone(), tok.to_vec()); if let Some(Some(o)) = t.conns.get_mut(nx as usize) { o.out.extend_from_slice(b"ok "); o.out.extend_from_slice(&tok); o.out.extend_from_slice(b" 33\n"); dirty.push(nx); } } None => { lt.m.remove(&k); lt.toks.remove(&k); } } }
            }
        }
        t.conns[u] = None; unsafe { libc::close(fd); }
    }
}

fn proxy(lfd: c_int, up: &Addr) {
    let ufd = connect(up, false).expect("up");
    let ep = unsafe { libc::epoll_create1(0) };
    ctl(ep, libc::EPOLL_CTL_ADD, lfd, libc::EPOLLIN as u32); ctl(ep, libc::EPOLL_CTL_ADD, ufd, libc::EPOLLIN as u32);
    let mut evs: Vec<libc::epoll_event> = vec![unsafe { std::mem::zeroed() }; 256];
    let mut rbuf = vec![0u8; 1 << 17];
    struct P { inb: Vec<u8>, gen: u32 }
    let mut conns: Vec<Option<P>> = Vec::new(); let mut gen = 0u32;
    let mut pend: Vec<(c_int, u32, [u8; 4])> = vec![(0, 0, [0; 4]); 65536]; let mut seq: u32 = 0;
    let mut uout: Vec<u8> = Vec::new(); let mut uin: Vec<u8> = Vec::new();
    macro_rules! rd { ($fd:expr) => {{ let fd = $fd; let r = unsafe { libc::recv(fd, rbuf.as_mut_ptr() as *mut _, rbuf.len(), libc::MSG_DONTWAIT) };
        if r == 0 || (r < 0 && errno() != libc::EAGAIN) { conns[fd as usize] = None; unsafe { libc::close(fd); } false }
        else { if r > 0 { let c = conns[fd as usize].as_mut().unwrap(); c.inb.extend_from_slice(&rbuf[..r as usize]); let mut p = 0;
            while c.inb.len() - p >= 14 { let l = 14 + u16::from_be_bytes([c.inb[p + 12], c.inb[p + 13]]) as usize; if c.inb.len() - p < l { break; }
                let f = &c.inb[p..p + l]; seq = seq.wrapping_add(1); pend[(seq & 65535) as usize] = (fd, c.gen, [f[5], f[6], f[7], f[8]]);
                let h = uout.len(); uout.extend_from_slice(f); uout[h + 5..h + 9].copy_from_slice(&seq.to_be_bytes()); p += l; }
            c.inb.drain(..p); } true } }}; }
    loop {
        let n = unsafe { libc::epoll_wait(ep, evs.as_mut_ptr(), 256, -1) };
        for k in 0..n.max(0) as usize {
            let fd = evs[k].u64 as c_int;
            if fd == lfd {
                loop {
                    let nf = unsafe { libc::accept4(lfd, std::ptr::null_mut(), std::ptr::null_mut(), libc::SOCK_NONBLOCK | libc::SOCK_CLOEXEC) };
                    if nf < 0 { break; }
                    gen += 1; if conns.len() <= nf as usize { conns.resize_with(nf as usize + 64, || None); }
                    conns[nf as usize] = Some(P { inb: vec![], gen });
                    ctl(ep, libc::EPOLL_CTL_ADD, nf, libc::EPOLLIN as u32);
                    rd!(nf);
                }
            } else if fd == ufd {
                let r = unsafe { libc::recv(ufd, rbuf.as_mut_ptr() as *mut _, rbuf.len(), libc::MSG_DONTWAIT) };
                if r <= 0 { if r < 0 && errno() == libc::EAGAIN { continue; } eprintln!("upstream gone"); return; }
                uin.extend_from_slice(&rbuf[..r as usize]); let mut p = 0;
                while uin.len() - p >= 14 { let l = 14 + u16::from_be_bytes([uin[p + 12], uin[p + 13]]) as usize; if uin.len() - p < l { break; }
                    let s = u32::from_be_bytes([uin[p + 5], uin[p + 6], uin[p + 7], uin[p + 8]]); let (cfd, g, u) = pend[(s & 65535) as usize];
                    uin[p + 5..p + 9].copy_from_slice(&u);
                    if let Some(Some(c)) = conns.get(cfd as usize) { if c.gen == g { unsafe { libc::send(cfd, uin[p..].as_ptr() as *const _, l, libc::MSG_DONTWAIT | libc::MSG_NOSIGNAL); } } }
                    p += l; }
                uin.drain(..p);
            } else { if conns.get(fd as usize).map(|c| c.is_some()).unwrap_or(false) { rd!(fd); } }
        }
        let mut o = 0; while o < uout.len() { let r = unsafe { libc::send(ufd, uout[o..].as_ptr() as *const _, uout.len() - o, libc::MSG_NOSIGNAL) }; if r < 0 { eprintln!("up write"); return; } o += r as usize; } uout.clear();
    }
}

fn main() {
    let mut m: HashMap<String, String> = HashMap::new();
    let a: Vec<String> = std::env::args().skip(1).collect();
    for p in a.chunks(2) { m.insert(p[0].trim_start_matches("--").into(), p.get(1).cloned().unwrap_or_default()); }
    let g = |k: &str, d: &str| m.get(k).cloned().unwrap_or(d.into());
    let addr = parse_addr(&g("listen", "tcp:127.0.0.1:9100")); let tcp = matches!(addr, Addr::Tcp(..));
    let threads: usize = g("threads", "1").parse().unwrap(); let ms = g("mode", "map"); let cap: usize = g("cap", "18446744073709551615").parse().unwrap();
    let late = g("eager", "1") == "1"; let lazy = g("lazy", "0") == "1";
    let lfd = listen(&addr);
    if ms == "proxy" { proxy(lfd, &parse_addr(&g("up", ""))); return; }
    let mode = if ms == "echo" { Mode::Echo } else if ms == "locks" { Mode::Locks } else if let Some(r) = ms.strip_prefix("fixed:") { let (x, y) = r.split_once(':').unwrap(); Mode::Fixed(x.parse().unwrap(), y.parse().unwrap()) } else { Mode::Map };
    let ns = if threads == 1 { 1 } else { SH };
    let fast = ms == "mapf"; let pc = if cap == usize::MAX { cap } else { cap / ns };
    let sh = (0..ns).map(|_| Mutex::new(if fast { Box::new(MapStore { m: HashMap::with_hasher(foldhash::fast::RandomState::default()), fifo: VecDeque::new(), cap: pc }) as Box<dyn Store> } else { Box::new(MapStore { m: HashMap::new(), fifo: VecDeque::new(), cap: pc }) })).collect();
    let st = Arc::new(Shared { sh, locked: threads > 1 }); let mode = Arc::new(mode);
    let eps: Vec<c_int> = (0..threads).map(|_| unsafe { libc::epoll_create1(0) }).collect();
    let mut js = vec![];
    for i in 1..threads { let (e, mo, s) = (eps.clone(), mode.clone(), st.clone()); js.push(std::thread::spawn(move || run_thread(i, e, lfd, mo, s, tcp, late, lazy))); }
    run_thread(0, eps, lfd, mode, st, tcp, late, lazy);
    for j in js { let _ = j.join(); }
}
