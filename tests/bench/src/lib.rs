//! Shared parts: sockets, time, histogram, figures of /proc.
use std::ffi::CString;
use std::os::raw::c_int;

#[derive(Clone)]
pub enum Addr { Tcp(u32, u16), Unix(String) }

pub fn parse_addr(s: &str) -> Addr {
    if let Some(p) = s.strip_prefix("unix:") { return Addr::Unix(p.to_string()); }
    let s = s.strip_prefix("tcp:").unwrap_or(s);
    let (h, p) = s.rsplit_once(':').expect("addr");
    let ip: std::net::Ipv4Addr = h.parse().expect("ip");
    Addr::Tcp(u32::from_be_bytes(ip.octets()), p.parse().expect("port"))
}

pub unsafe fn sockaddr(a: &Addr) -> (libc::sockaddr_storage, libc::socklen_t, c_int) {
    let mut ss: libc::sockaddr_storage = std::mem::zeroed();
    match a {
        Addr::Tcp(ip, port) => {
            let sa = &mut *(&mut ss as *mut _ as *mut libc::sockaddr_in);
            sa.sin_family = libc::AF_INET as u16;
            sa.sin_port = port.to_be();
            sa.sin_addr.s_addr = ip.to_be();
            (ss, std::mem::size_of::<libc::sockaddr_in>() as u32, libc::AF_INET)
        }
        Addr::Unix(p) => {
            let sa = &mut *(&mut ss as *mut _ as *mut libc::sockaddr_un);
            sa.sun_family = libc::AF_UNIX as u16;
            let c = CString::new(p.as_str()).unwrap();
            let b = c.as_bytes_with_nul();
            for (i, x) in b.iter().enumerate() { sa.sun_path[i] = *x as _; }
            (ss, (2 + b.len()) as u32, libc::AF_UNIX)
        }
    }
}

pub fn errno() -> i32 { std::io::Error::last_os_error().raw_os_error().unwrap_or(0) }

pub fn set_nodelay(fd: c_int) {
    let one: c_int = 1;
    unsafe { libc::setsockopt(fd, libc::IPPROTO_TCP, libc::TCP_NODELAY, &one as *const _ as *const _, 4); }
}

/// Connects. The socket stays blocking: use MSG_DONTWAIT to read and write.
pub fn connect(a: &Addr, linger0: bool) -> Result<c_int, i32> {
    unsafe {
        let (ss, len, fam) = sockaddr(a);
        let fd = libc::socket(fam, libc::SOCK_STREAM | libc::SOCK_CLOEXEC, 0);
        if fd < 0 { return Err(errno()); }
        if fam == libc::AF_INET {
            set_nodelay(fd);
            if linger0 {
                let l = libc::linger { l_onoff: 1, l_linger: 0 };
                libc::setsockopt(fd, libc::SOL_SOCKET, libc::SO_LINGER, &l as *const _ as *const _, std::mem::size_of::<libc::linger>() as u32);
            }
        }
        if libc::connect(fd, &ss as *const _ as *const _, len) < 0 {
            let e = errno();
            libc::close(fd);
            return Err(e);
        }
        Ok(fd)
    }
}

pub fn listen(a: &Addr) -> c_int {
    unsafe {
        if let Addr::Unix(p) = a { let _ = std::fs::remove_file(p); }
        let (ss, len, fam) = sockaddr(a);
        let fd = libc::socket(fam, libc::SOCK_STREAM | libc::SOCK_CLOEXEC | libc::SOCK_NONBLOCK, 0);
        assert!(fd >= 0);
        let one: c_int = 1;
        if fam == libc::AF_INET {
            libc::setsockopt(fd, libc::SOL_SOCKET, libc::SO_REUSEADDR, &one as *const _ as *const _, 4);
        }
        assert!(libc::bind(fd, &ss as *const _ as *const _, len) == 0, "bind {}", errno());
        assert!(libc::listen(fd, 4096) == 0);
        fd
    }
}

#[inline]
pub fn now_ns() -> u64 {
    unsafe {
        let mut ts: libc::timespec = std::mem::zeroed();
        libc::clock_gettime(libc::CLOCK_MONOTONIC, &mut ts);
        ts.tv_sec as u64 * 1_000_000_000 + ts.tv_nsec as u64
    }
}

pub fn pin(cpu: i64) {
    if cpu < 0 { return; }
    unsafe {
        let mut set: libc::cpu_set_t = std::mem::zeroed();
        libc::CPU_SET(cpu as usize, &mut set);
        libc::sched_setaffinity(0, std::mem::size_of::<libc::cpu_set_t>(), &set);
    }
}

pub struct Hist { b: Vec<u32>, n: u64, max: u64, sum: u64 }
impl Hist {
    pub fn new() -> Self { Hist { b: vec![0; 64 * 64], n: 0, max: 0, sum: 0 } }
    #[inline]
    fn idx(v: u64) -> usize {
        if v < 64 { return v as usize; }
        let e = 63 - v.leading_zeros() as usize; // >=6
        let m = ((v >> (e - 5)) & 31) as usize;  // 5 bits of mantissa
        64 + (e - 6) * 32 + m
    }
    fn val(i: usize) -> u64 {
        if i < 64 { return i as u64; }
        let e = (i - 64) / 32 + 6; let m = ((i - 64) % 32) as u64;
        (1u64 << e) + (m << (e - 5)) + (1u64 << (e - 6))
    }
    #[inline]
    pub fn add(&mut self, v: u64) { self.b[Self::idx(v)] += 1; self.n += 1; self.sum += v; if v > self.max { self.max = v; } }
    pub fn q(&self, q: f64) -> u64 {
        if self.n == 0 { return 0; }
        let t = ((self.n as f64) * q).ceil() as u64; let mut c = 0u64;
        for (i, x) in self.b.iter().enumerate() { c += *x as u64; if c >= t { return Self::val(i); } }
        self.max
    }
    pub fn mean(&self) -> f64 { if self.n == 0 { 0.0 } else { self.sum as f64 / self.n as f64 } }
    pub fn max(&self) -> u64 { self.max }
    pub fn n(&self) -> u64 { self.n }
    pub fn clear(&mut self) { self.b.iter_mut().for_each(|x| *x = 0); self.n = 0; self.max = 0; self.sum = 0; }
}

#[derive(Clone, Copy, Default, Debug)]
pub struct Cpu { pub ns: u64, pub ut: u64, pub st: u64, pub cs: u64, pub rss_kb: u64 }

pub fn proc_cpu(pids: &[i32]) -> Cpu {
    let mut c = Cpu::default();
    for p in pids {
        if let Ok(rd) = std::fs::read_dir(format!("/proc/{}/task", p)) {
            for t in rd.flatten() {
                if let Ok(s) = std::fs::read_to_string(t.path().join("schedstat")) {
                    let mut it = s.split_whitespace();
                    c.ns += it.next().and_then(|x| x.parse::<u64>().ok()).unwrap_or(0);
                    it.next();
                    c.cs += it.next().and_then(|x| x.parse::<u64>().ok()).unwrap_or(0);
                }
            }
        }
        if let Ok(s) = std::fs::read_to_string(format!("/proc/{}/stat", p)) {
            if let Some(i) = s.rfind(')') {
                let f: Vec<&str> = s[i + 1..].split_whitespace().collect();
                c.ut += f[11].parse::<u64>().unwrap_or(0);
                c.st += f[12].parse::<u64>().unwrap_or(0);
                c.rss_kb += f[21].parse::<u64>().unwrap_or(0) * 4;
            }
        }
    }
    c
}

pub fn steal_ticks() -> u64 {
    let s = std::fs::read_to_string("/proc/stat").unwrap_or_default();
    s.lines().next().and_then(|l| l.split_whitespace().nth(8)).and_then(|x| x.parse().ok()).unwrap_or(0)
}

#[inline]
pub fn splitmix(mut x: u64) -> u64 {
    x = x.wrapping_add(0x9E3779B97F4A7C15);
    x = (x ^ (x >> 30)).wrapping_mul(0xBF58476D1CE4E5B9);
    x = (x ^ (x >> 27)).wrapping_mul(0x94D049BB133111EB);
    x ^ (x >> 31)
}
#[inline]
pub fn id_bytes(seed: u64, i: u64) -> [u8; 32] {
    let mut o = [0u8; 32];
    let b = splitmix(splitmix(seed).wrapping_add(i));
    o[0..8].copy_from_slice(&b.to_le_bytes());
    o[8..16].copy_from_slice(&splitmix(b).to_le_bytes());
    o[16..24].copy_from_slice(&splitmix(b ^ 0x1111).to_le_bytes());
    o[24..32].copy_from_slice(&splitmix(b ^ 0x2222).to_le_bytes());
    o
}
