//! The cost of system calls, of wake-ups across threads, of accept and close, of look-ups in maps.
use perfbench::*;
use std::os::raw::c_int;
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::sync::Arc;
fn med(mut v: Vec<f64>) -> (f64, f64, f64) { v.sort_by(|a, b| a.partial_cmp(b).unwrap()); (v[v.len() / 2], v[0], v[v.len() - 1]) }
fn bench(name: &str, n: u64, mut f: impl FnMut()) {
    let mut v = vec![];
    for _ in 0..7 { let t = now_ns(); for _ in 0..n { f(); } v.push((now_ns() - t) as f64 / n as f64); }
    let (m, lo, hi) = med(v); println!("{name:52} {m:9.0} ns  (min {lo:.0} max {hi:.0})");
}
fn mycpu() -> u64 { unsafe { let mut ts: libc::timespec = std::mem::zeroed(); libc::clock_gettime(libc::CLOCK_PROCESS_CPUTIME_ID, &mut ts); ts.tv_sec as u64 * 1_000_000_000 + ts.tv_nsec as u64 } }
fn pingpong(name: &str, c0: i64, c1: i64, n: u64, mk: impl Fn() -> [c_int; 4], epoll: bool) {
    let mut v = vec![]; let mut cv = vec![];
    for _ in 0..5 {
        let fds = mk();
        let h = std::thread::spawn(move || { pin(c1); let ep = unsafe { libc::epoll_create1(0) }; let mut e = libc::epoll_event { events: libc::EPOLLIN as u32, u64: 0 }; unsafe { libc::epoll_ctl(ep, libc::EPOLL_CTL_ADD, fds[1], &mut e); } let mut b = [0u8; 8];
            for _ in 0..n { unsafe { if epoll { libc::epoll_wait(ep, &mut e, 1, -1); } libc::read(fds[1], b.as_mut_ptr() as *mut _, 8); b = 1u64.to_ne_bytes(); libc::write(fds[2], b.as_ptr() as *const _, 8); } } unsafe { libc::close(ep); } });
        let h2 = std::thread::spawn(move || { pin(c0); let ep = unsafe { libc::epoll_create1(0) }; let mut e = libc::epoll_event { events: libc::EPOLLIN as u32, u64: 0 }; unsafe { libc::epoll_ctl(ep, libc::EPOLL_CTL_ADD, fds[3], &mut e); } let mut b; let t = now_ns();
            for _ in 0..n { unsafe { b = 1u64.to_ne_bytes(); libc::write(fds[0], b.as_ptr() as *const _, 8); if epoll { libc::epoll_wait(ep, &mut e, 1, -1); } libc::read(fds[3], b.as_mut_ptr() as *mut _, 8); } } unsafe { libc::close(ep); } (now_ns() - t) as f64 / n as f64 });
        let c = mycpu(); let r = h2.join().unwrap(); h.join().unwrap(); v.push(r / 2.0); cv.push((mycpu() - c) as f64 / n as f64 / 2.0);
        for f in { let mut x = fds.to_vec(); x.sort(); x.dedup(); x } { unsafe { libc::close(f); } }
    }
    let (m, lo, hi) = med(v); let (cm, _, _) = med(cv); println!("{name:52} {m:9.0} ns one way (min {lo:.0} max {hi:.0}), cpu {cm:.0} ns per hop (both sides)");
}
fn efd() -> c_int { unsafe { libc::eventfd(0, 0) } }
fn tcp_pair() -> (c_int, c_int) { let a = Addr::Tcp(0x7f000001, 0); unsafe { let l = listen(&a); let mut sa: libc::sockaddr_in = std::mem::zeroed(); let mut sl = 16u32; libc::getsockname(l, &mut sa as *mut _ as *mut _, &mut sl); let c = connect(&Addr::Tcp(0x7f000001, u16::from_be(sa.sin_port)), false).unwrap(); let s = libc::accept(l, std::ptr::null_mut(), std::ptr::null_mut()); set_nodelay(s); libc::close(l); (c, s) } }
fn upair() -> (c_int, c_int) { let mut s = [0; 2]; unsafe { libc::socketpair(libc::AF_UNIX, libc::SOCK_STREAM, 0, s.as_mut_ptr()); } (s[0], s[1]) }
fn main() {
    pin(0);
    let mut b = [0u8; 4096];
    let mut spin = vec![]; for _ in 0..30 { let t = now_ns(); let mut x = 1u64; for i in 0..20_000_000u64 { x = splitmix(x ^ i); } std::hint::black_box(x); spin.push((now_ns() - t) as f64 / 1e6); }
    let (m, lo, hi) = med(spin); println!("spin 20M splitmix: {m:.1} ms (min {lo:.1} max {hi:.1}) spread {:.0}%", (hi / lo - 1.0) * 100.0);
    bench("clock_gettime(vdso)", 1_000_000, || { std::hint::black_box(now_ns()); });
    bench("getppid syscall", 500_000, || unsafe { libc::getppid(); });
    let e = efd(); bench("eventfd write+read (2 syscalls)", 300_000, || unsafe { b[..8].copy_from_slice(&1u64.to_ne_bytes()); libc::write(e, b.as_ptr() as *const _, 8); libc::read(e, b.as_mut_ptr() as *mut _, 8); });
    let ep = unsafe { libc::epoll_create1(0) }; let mut ev = libc::epoll_event { events: libc::EPOLLIN as u32, u64: 0 };
    unsafe { libc::epoll_ctl(ep, libc::EPOLL_CTL_ADD, e, &mut ev); libc::write(e, 1u64.to_ne_bytes().as_ptr() as *const _, 8); }
    bench("epoll_wait ready (1 fd)", 300_000, || unsafe { libc::epoll_wait(ep, &mut ev, 1, 0); });
    let (u0, u1) = upair(); let (t0, t1) = tcp_pair();
    for sz in [46usize, 194, 1080, 2048] {
        bench(&format!("unix send+recv same thread {sz}B (2 syscalls)"), 200_000, || unsafe { libc::send(u0, b.as_ptr() as *const _, sz, 0); libc::recv(u1, b.as_mut_ptr() as *mut _, 4096, 0); });
        bench(&format!("tcp  send+recv same thread {sz}B (2 syscalls)"), 100_000, || unsafe { libc::send(t0, b.as_ptr() as *const _, sz, 0); libc::recv(t1, b.as_mut_ptr() as *mut _, 4096, 0); });
    }
    for (nm, a, z) in [("unix", u0, u1), ("tcp", t0, t1)] { let mut sv = vec![]; let mut rv = vec![]; for _ in 0..7 { let (mut s, mut r) = (0u64, 0u64); for _ in 0..50_000 { let x = now_ns(); unsafe { libc::send(a, b.as_ptr() as *const _, 194, 0); } let y = now_ns(); unsafe { libc::recv(z, b.as_mut_ptr() as *mut _, 4096, 0); } s += y - x; r += now_ns() - y; } sv.push(s as f64 / 5e4); rv.push(r as f64 / 5e4); } println!("{nm} 194B: send {:.0} ns, recv {:.0} ns (each incl ~23 ns timer)", med(sv).0, med(rv).0); }
    // A send() that wakes an idle thread, on the other processor and on the same.
    for (nm, cpu) in [("other cpu", 1i64), ("same cpu", 0)] { for (pn, pr) in [("eventfd", 0), ("unix", 1), ("tcp", 2)] { let (a, z) = match pr { 0 => { let e = efd(); (e, e) } 1 => upair(), _ => tcp_pair() }; let h = std::thread::spawn(move || { pin(cpu); let mut b = [0u8; 64]; loop { let r = unsafe { libc::read(z, b.as_mut_ptr() as *mut _, if pr == 0 { 8 } else { 64 }) }; if r <= 0 || b[0] >= 9 { break; } } }); let mut v = vec![]; let mut m = 1u64.to_ne_bytes(); for _ in 0..2000 { std::thread::sleep(std::time::Duration::from_micros(150)); let x = now_ns(); unsafe { libc::write(a, m.as_ptr() as *const _, 8); } v.push((now_ns() - x) as f64); } std::thread::sleep(std::time::Duration::from_millis(20)); m[0] = 9; unsafe { libc::write(a, m.as_ptr() as *const _, 8); } h.join().unwrap(); let (md, lo, _) = med(v); println!("{:52} {md:9.0} ns (min {lo:.0})", format!("write() {pn} that wakes a sleeping thread, {nm}")); } }
    bench("recv EAGAIN unix", 300_000, || unsafe { libc::recv(u1, b.as_mut_ptr() as *mut _, 4096, libc::MSG_DONTWAIT); });
    bench("recv EAGAIN tcp", 300_000, || unsafe { libc::recv(t1, b.as_mut_ptr() as *mut _, 4096, libc::MSG_DONTWAIT); });
    let ua = Addr::Unix(std::env::temp_dir().join("dcbench-micro.sock").to_string_lossy().into_owned()); let ul = listen(&ua);
    bench("unix connect+accept+close both (same thread)", 30_000, || unsafe { let c = connect(&ua, false).unwrap(); let s = libc::accept4(ul, std::ptr::null_mut(), std::ptr::null_mut(), libc::SOCK_NONBLOCK); libc::close(c); libc::close(s); });
    { let mut acc = vec![]; for _ in 0..7 { let mut cs = vec![]; for _ in 0..1000 { cs.push(connect(&ua, false).unwrap()); } let t = now_ns(); let mut ss = vec![]; for _ in 0..1000 { ss.push(unsafe { libc::accept4(ul, std::ptr::null_mut(), std::ptr::null_mut(), libc::SOCK_NONBLOCK) }); } let t2 = now_ns(); for s in &ss { let mut ev = libc::epoll_event { events: 1, u64: 0 }; unsafe { libc::epoll_ctl(ep, libc::EPOLL_CTL_ADD, *s, &mut ev); } } let t3 = now_ns(); for c in cs { unsafe { libc::close(c); } } let t4 = now_ns(); for s in ss { unsafe { libc::close(s); } } acc.push([(t2 - t) as f64 / 1000.0, (t3 - t2) as f64 / 1000.0, (now_ns() - t4) as f64 / 1000.0]); }
      for (i, n) in ["accept4", "epoll_ctl ADD", "close (in epoll, peer closed)"].iter().enumerate() { let (m, lo, hi) = med(acc.iter().map(|a| a[i]).collect()); println!("unix {n:47} {m:9.0} ns  (min {lo:.0} max {hi:.0})"); } }
    pingpong("eventfd blocking read ping-pong cpu0<->cpu1", 0, 1, 10_000, || { let (a, b) = (efd(), efd()); [a, a, b, b] }, false);
    pingpong("eventfd epoll ping-pong cpu0<->cpu1", 0, 1, 10_000, || { let (a, b) = (efd(), efd()); [a, a, b, b] }, true);
    pingpong("eventfd blocking ping-pong same cpu", 0, 0, 10_000, || { let (a, b) = (efd(), efd()); [a, a, b, b] }, false);
    pingpong("unix socket epoll ping-pong cpu0<->cpu1", 0, 1, 10_000, || { let (a, b) = upair(); [a, b, b, a] }, true);
    pingpong("tcp socket epoll ping-pong cpu0<->cpu1", 0, 1, 10_000, || { let (a, b) = tcp_pair(); [a, b, b, a] }, true);
    pingpong("tcp socket epoll ping-pong same cpu", 0, 0, 10_000, || { let (a, b) = tcp_pair(); [a, b, b, a] }, true);
    // Park and unpark.
    { let n = 50_000u64; let mut v = vec![]; let mut cv = vec![];
      for _ in 0..5 { let f = Arc::new((AtomicBool::new(false), AtomicBool::new(false))); let f2 = f.clone(); let main = std::sync::mpsc::channel::<std::thread::Thread>(); let tx = main.0;
        let h = std::thread::spawn(move || { pin(1); tx.send(std::thread::current()).unwrap(); for _ in 0..n { while !f2.0.swap(false, Ordering::AcqRel) { std::thread::park(); } f2.1.store(true, Ordering::Release); MAINT.lock().unwrap().as_ref().unwrap().unpark(); } });
        *MAINT.lock().unwrap() = Some(std::thread::current()); let o = main.1.recv().unwrap(); let c = mycpu(); let t = now_ns();
        for _ in 0..n { f.0.store(true, Ordering::Release); o.unpark(); while !f.1.swap(false, Ordering::AcqRel) { std::thread::park(); } }
        v.push((now_ns() - t) as f64 / n as f64 / 2.0); cv.push((mycpu() - c) as f64 / n as f64 / 2.0); h.join().unwrap(); }
      let (m, lo, hi) = med(v); println!("{:52} {m:9.0} ns one way (min {lo:.0} max {hi:.0}), cpu {:.0} ns per hop", "futex park/unpark cpu0<->cpu1", med(cv).0); }
    // A cache line in turns.
    { let n = 500_000u64; let f = Arc::new(AtomicU64::new(0)); let f2 = f.clone(); let h = std::thread::spawn(move || { pin(1); for i in 0..n { while f2.load(Ordering::Acquire) != 2 * i + 1 { std::hint::spin_loop(); } f2.store(2 * i + 2, Ordering::Release); } }); let t = now_ns(); for i in 0..n { f.store(2 * i + 1, Ordering::Release); while f.load(Ordering::Acquire) != 2 * i + 2 { std::hint::spin_loop(); } } println!("{:52} {:9.0} ns one way", "spinning cache line cpu0<->cpu1", (now_ns() - t) as f64 / n as f64 / 2.0); h.join().unwrap(); }
    // Channels of tokio.
    for (nm, multi) in [("tokio current_thread", false), ("tokio multi(2)", true)] {
        unpin();
        let rt = if multi { tokio::runtime::Builder::new_multi_thread().worker_threads(2).enable_all().build().unwrap() } else { tokio::runtime::Builder::new_current_thread().enable_all().build().unwrap() };
        let mut v = vec![]; let mut cv = vec![]; for _ in 0..5 { let c = mycpu(); let n = 50_000u64; let t = rt.block_on(async move { tokio::spawn(async move { let (tx, mut rx) = tokio::sync::mpsc::channel::<tokio::sync::oneshot::Sender<u32>>(64); tokio::spawn(async move { while let Some(o) = rx.recv().await { let _ = o.send(1); } }); let t = now_ns(); for _ in 0..n { let (a, b) = tokio::sync::oneshot::channel(); tx.send(a).await.unwrap(); b.await.unwrap(); } (now_ns() - t) as f64 / n as f64 }).await.unwrap() }); v.push(t); cv.push((mycpu() - c) as f64 / n as f64); }
        let (m, lo, hi) = med(v); println!("{:52} {m:9.0} ns round trip (min {lo:.0} max {hi:.0}), cpu {:.0}", format!("{nm}: mpsc + oneshot round trip"), med(cv).0);
    }
    { pin(0); let n = 1_000_000u64; let mut m: std::collections::HashMap<Box<[u8]>, Box<[u8]>> = Default::default(); let mut m2: std::collections::HashMap<Box<[u8]>, Box<[u8]>, foldhash::fast::RandomState> = Default::default(); for i in 0..n { m.insert(Box::from(&id_bytes(1, i)[..]), vec![0u8; 180].into()); m2.insert(Box::from(&id_bytes(1, i)[..]), vec![0u8; 180].into()); } let mut i = 0u64; let mut s = 0u64;
      bench("HashMap<Box,Box> SipHash get, 1M x 180B, random", 500_000, || { i += 1; s += m.get(&id_bytes(1, splitmix(i) % n)[..]).unwrap()[5] as u64; }); bench("HashMap<Box,Box> foldhash get, 1M x 180B, random", 500_000, || { i += 1; s += m2.get(&id_bytes(1, splitmix(i) % n)[..]).unwrap()[5] as u64; }); bench("HashMap foldhash get, 1k hot", 500_000, || { i += 1; s += m2.get(&id_bytes(1, splitmix(i) % 1000)[..]).unwrap()[5] as u64; }); bench("id_bytes alone", 500_000, || { i += 1; s += id_bytes(1, splitmix(i) % n)[9] as u64; }); std::hint::black_box(s); }
}
static MAINT: std::sync::Mutex<Option<std::thread::Thread>> = std::sync::Mutex::new(None);
fn unpin() { unsafe { let mut s: libc::cpu_set_t = std::mem::zeroed(); libc::CPU_SET(0, &mut s); libc::CPU_SET(1, &mut s); libc::sched_setaffinity(0, std::mem::size_of::<libc::cpu_set_t>(), &s); } }
