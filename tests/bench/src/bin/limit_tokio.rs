//! The limit on tokio: `--rt current|multi --workers N --mode map|actor|proxy --listen ADDR [--up ADDR]`.
use foldhash::fast::RandomState;
use std::collections::HashMap;
use std::sync::{Arc, Mutex};
use tokio::io::{AsyncRead, AsyncReadExt, AsyncWrite, AsyncWriteExt};
use tokio::sync::{mpsc, oneshot};

type M = HashMap<Box<[u8]>, Box<[u8]>, RandomState>;
const SH: usize = 16;
struct Store { sh: Vec<Mutex<M>> }
impl Store {
    fn new() -> Self { Store { sh: (0..SH).map(|_| Mutex::new(M::default())).collect() } }
    fn s(&self, k: &[u8]) -> &Mutex<M> { &self.sh[k.get(7).copied().unwrap_or(0) as usize % SH] }
    fn op(&self, op: u8, d: &[u8], out: &mut Vec<u8>) {
        match op {
            0 => { let il = u32::from_be_bytes([d[4], d[5], d[6], d[7]]) as usize; let (k, v) = d[8..].split_at(il); let mut g = self.s(k).lock().unwrap(); if g.contains_key(k) { out.push(101) } else { g.insert(k.into(), v.into()); out.push(0) } }
            1 => { match self.s(d).lock().unwrap().get(d) { Some(v) => out.extend_from_slice(v), None => out.push(1) } }
            2 => out.push(self.s(d).lock().unwrap().remove(d).is_none() as u8),
            _ => out.push(!self.s(d).lock().unwrap().contains_key(d) as u8),
        }
    }
}
fn process(st: &Store, inb: &[u8], out: &mut Vec<u8>) -> usize {
    let mut p = 0;
    loop {
        let b = &inb[p..]; if b.len() < 14 { return p; }
        let l = u16::from_be_bytes([b[12], b[13]]) as usize; if b.len() < 14 + l { return p; }
        let h = out.len(); out.extend_from_slice(&b[..14]); out[h + 4] = 1;
        st.op(b[10], &b[14..14 + l], out);
        let n = (out.len() - h - 14) as u16; out[h + 12..h + 14].copy_from_slice(&n.to_be_bytes()); p += 14 + l;
    }
}
async fn serve<S: AsyncRead + AsyncWrite + Unpin>(mut s: S, st: Arc<Store>) {
    let mut inb: Vec<u8> = Vec::with_capacity(16384); let mut out = Vec::with_capacity(16384);
    loop {
        match s.read_buf(&mut inb).await { Ok(0) | Err(_) => return, _ => {} }
        let u = process(&st, &inb, &mut out); inb.drain(..u);
        if !out.is_empty() { if s.write_all(&out).await.is_err() { return; } out.clear(); }
    }
}
struct Req { op: u8, d: Vec<u8>, tx: oneshot::Sender<Vec<u8>> }
async fn serve_actor<S: AsyncRead + AsyncWrite + Unpin>(mut s: S, q: mpsc::Sender<Req>) {
    let mut inb: Vec<u8> = Vec::with_capacity(16384); let mut out = Vec::with_capacity(16384);
    loop {
        match s.read_buf(&mut inb).await { Ok(0) | Err(_) => return, _ => {} }
        let mut p = 0; let mut w: Vec<([u8; 14], oneshot::Receiver<Vec<u8>>)> = vec![];
        loop {
            let b = &inb[p..]; if b.len() < 14 { break; }
            let l = u16::from_be_bytes([b[12], b[13]]) as usize; if b.len() < 14 + l { break; }
            let (tx, rx) = oneshot::channel(); let mut h = [0u8; 14]; h.copy_from_slice(&b[..14]);
            if q.send(Req { op: b[10], d: b[14..14 + l].to_vec(), tx }).await.is_err() { return; }
            w.push((h, rx)); p += 14 + l;
        }
        inb.drain(..p);
        for (mut h, rx) in w { let r = rx.await.unwrap(); h[4] = 1; h[12..14].copy_from_slice(&(r.len() as u16).to_be_bytes()); out.extend_from_slice(&h); out.extend_from_slice(&r); }
        if !out.is_empty() { if s.write_all(&out).await.is_err() { return; } out.clear(); }
    }
}
// Proxy: local connections -> mpsc -> one upstream task; responses by oneshot.
struct PReq { f: Vec<u8>, tx: oneshot::Sender<Vec<u8>> }
async fn pclient<S: AsyncRead + AsyncWrite + Unpin>(mut s: S, q: mpsc::Sender<PReq>) {
    let mut inb: Vec<u8> = Vec::with_capacity(2048);
    loop {
        match s.read_buf(&mut inb).await { Ok(0) | Err(_) => return, _ => {} }
        loop {
            if inb.len() < 14 { break; }
            let l = 14 + u16::from_be_bytes([inb[12], inb[13]]) as usize; if inb.len() < l { break; }
            let (tx, rx) = oneshot::channel(); let f = inb[..l].to_vec(); inb.drain(..l); let uid = [f[5], f[6], f[7], f[8]];
            if q.send(PReq { f, tx }).await.is_err() { return; }
            let Ok(mut r) = rx.await else { return }; r[5..9].copy_from_slice(&uid);
            if s.write_all(&r).await.is_err() { return; }
        }
    }
}
async fn upstream(addr: String, mut rx: mpsc::Receiver<PReq>) {
    let s = tokio::net::TcpStream::connect(addr.trim_start_matches("tcp:")).await.unwrap(); s.set_nodelay(true).unwrap();
    let (mut r, mut w) = s.into_split();
    let pend: Arc<Mutex<HashMap<u32, oneshot::Sender<Vec<u8>>, RandomState>>> = Default::default(); let p2 = pend.clone();
    tokio::spawn(async move {
        let mut inb: Vec<u8> = Vec::with_capacity(65536);
        loop {
            match r.read_buf(&mut inb).await { Ok(0) | Err(_) => return, _ => {} }
            let mut p = 0;
            while inb.len() - p >= 14 { let l = 14 + u16::from_be_bytes([inb[p + 12], inb[p + 13]]) as usize; if inb.len() - p < l { break; }
                let u = u32::from_be_bytes([inb[p + 5], inb[p + 6], inb[p + 7], inb[p + 8]]);
                if let Some(t) = p2.lock().unwrap().remove(&u) { let _ = t.send(inb[p..p + l].to_vec()); } p += l; }
            inb.drain(..p);
        }
    });
    let mut seq = 0u32; let mut buf = Vec::with_capacity(65536); let mut v = Vec::with_capacity(256);
    loop {
        if rx.recv_many(&mut v, 256).await == 0 { return; }
        { let mut g = pend.lock().unwrap(); for mut q in v.drain(..) { seq = seq.wrapping_add(1); q.f[5..9].copy_from_slice(&seq.to_be_bytes()); buf.extend_from_slice(&q.f); g.insert(seq, q.tx); } }
        if w.write_all(&buf).await.is_err() { return; } buf.clear();
    }
}
enum L { T(tokio::net::TcpListener), U(tokio::net::UnixListener) }
async fn run(listen: String, mode: String, up: String) {
    let l = if let Some(p) = listen.strip_prefix("unix:") { let _ = std::fs::remove_file(p);
            let std = std::os::unix::net::UnixListener::bind(p).unwrap(); unsafe { use std::os::fd::AsRawFd; libc::listen(std.as_raw_fd(), 4096); } std.set_nonblocking(true).unwrap(); L::U(tokio::net::UnixListener::from_std(std).unwrap()) }
        else { L::T(tokio::net::TcpListener::bind(listen.trim_start_matches("tcp:")).await.unwrap()) };
    let st = Arc::new(Store::new());
    let (qtx, mut qrx) = mpsc::channel::<Req>(1024); let (ptx, prx) = mpsc::channel::<PReq>(1024);
    if mode == "actor" { let s2 = st.clone(); tokio::spawn(async move { let mut v = Vec::with_capacity(256); loop { if qrx.recv_many(&mut v, 256).await == 0 { return; } for r in v.drain(..) { let mut o = Vec::new(); s2.op(r.op, &r.d, &mut o); let _ = r.tx.send(o); } } }); }
    if mode == "proxy" { tokio::spawn(upstream(up, prx)); }
    let body = async move { loop {
        macro_rules! go { ($s:expr) => {{ let s = $s; match mode.as_str() { "map" => { tokio::spawn(serve(s, st.clone())); } "actor" => { tokio::spawn(serve_actor(s, qtx.clone())); } _ => { tokio::spawn(pclient(s, ptx.clone())); } } }}; }
        match &l { L::T(l) => { if let Ok((s, _)) = l.accept().await { s.set_nodelay(true).ok(); go!(s) } } L::U(l) => { if let Ok((s, _)) = l.accept().await { go!(s) } } }
    } };
    tokio::spawn(body).await.unwrap();
}
fn main() {
    let mut m: HashMap<String, String> = HashMap::new();
    let a: Vec<String> = std::env::args().skip(1).collect();
    for p in a.chunks(2) { m.insert(p[0].trim_start_matches("--").into(), p.get(1).cloned().unwrap_or_default()); }
    let g = |k: &str, d: &str| m.get(k).cloned().unwrap_or(d.into());
    let rt = if g("rt", "current") == "current" { tokio::runtime::Builder::new_current_thread().enable_all().build().unwrap() } else { tokio::runtime::Builder::new_multi_thread().worker_threads(g("workers", "2").parse().unwrap()).enable_all().build().unwrap() };
    rt.block_on(run(g("listen", "tcp:127.0.0.1:9101"), g("mode", "map"), g("up", "")));
}
