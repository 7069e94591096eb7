#!/usr/bin/env python3
"""Measures locks beside what `compare locks` does: `lock_scale.py BIN LOADGEN`.

BIN holds dc_server and dc_client (target/release). LOADGEN is target/bench/release/loadgen, which `compare` builds.
Prints processor time for each acquire and release through an agent and straight at the server, with 1,000 and 1,000,000
locks held by somebody else, the memory of those, and what it costs when 100,000 waiters of one key disconnect.
The daemons run on core 0, the load on core 1.
"""
import json
import os
import random
import socket
import statistics
import struct
import subprocess
import sys
import tempfile
import time

BIN, LOADGEN = sys.argv[1:3]


def cpu(pid):
    f=open(f'/proc/{pid}/stat').read().rsplit(')',1)[1].split(); return (int(f[11])+int(f[12]))*10.0  # ms
def rss(pid):
    for l in open(f'/proc/{pid}/status'):
        if l.startswith('VmRSS'): return int(l.split()[1])*1024
def start():
    p=random.randint(20000,30000)
    s=subprocess.Popen(['taskset','-c','0',BIN+'/dc_server','-listen',f'IP:127.0.0.1:{p}','-max-locks','0','-sessions','0','-memory','1G'],stderr=subprocess.DEVNULL)
    while True:
        try: return s,p,socket.create_connection(('127.0.0.1',p))
        except OSError: time.sleep(.05)
def hdr(uid,cls,op,n): return bytes([0,0x11,0,1,0])+struct.pack('>I',uid)+bytes([cls,op,1])+struct.pack('>H',n)
def acquire(uid,owner,key,timeout,lease):
    d=struct.pack('>QH',owner,len(key))+key+struct.pack('>IQQ',1,timeout,lease); return hdr(uid,1,0,len(d))+d
def recv(c,n):
    b=b''
    while len(b)<n:
        x=c.recv(min(1<<20,n-len(b))); assert x; b+=x
    return b
def load(addr,pids,proto='dfl',**k):
    a=['taskset','-c','1',LOADGEN,'--addr',addr,'--proto',proto,'--pids',pids,'--secs','0.5','--warm','0.25','--runs','5','--seed',str(int(time.time()*1000)%10**9)]
    for n,v in k.items(): a+=['--'+n,str(v)]
    r=subprocess.run(a,capture_output=True,text=True); rows=[json.loads(l) for l in r.stdout.splitlines() if l.startswith('{')]
    return statistics.median(x['cpu_us'] for x in rows), statistics.median(x['ops_s'] for x in rows)
res={}
for n in (1000,1000000):
    s,p,c=start(); a=rss(s.pid); t=cpu(s.pid)
    step=1000
    for i in range(0,n,step):
        c.sendall(b''.join(acquire(j,0,b'key-%012d'%j,0,86400000) for j in range(i,i+step)))
        recv(c,step*(14+25))
    print('%8d held: %.0f bytes each beyond their keys of 16, %.2f us each to take (server cpu)'%(n,(rss(s.pid)-a)/n-16,(cpu(s.pid)-t)*1000/n))
    for label,kw in (('c64',dict(conns=64)),('c8 d16',dict(conns=8,depth=16)),('fresh keys c64',dict(conns=64))):
        res[(n,label)]=load(f'tcp:127.0.0.1:{p}',str(s.pid),**kw)
        print('   %-15s %.2f us/op %d ops/s'%((label,)+res[(n,label)]),flush=True)
    t=cpu(s.pid); w=time.time(); c.close()
    # closing: wait until the keys are free
    m=socket.create_connection(('127.0.0.1',p)); m.sendall(b'l\nkey-%012d\n60\n'%(n-1)); m.recv(200)
    time.sleep(.3)
    print('   disconnecting: %.0f ms cpu for %d held'%(cpu(s.pid)-t,n)); s.kill()
for l in ('c64','c8 d16'): print('   x of 1,000: %s %.2f'%(l,res[(1000000,l)][0]/res[(1000,l)][0]))
# waiters
s,p,c=start(); h=socket.create_connection(('127.0.0.1',p)); h.sendall(b'l\nk\n0 3600\n'); tok=h.recv(200).split()[1]
n=100000
for i in range(0,n,1000): c.sendall(b''.join(acquire(j,j,b'k',3600000,0) for j in range(i,i+1000)))
m=socket.create_connection(('127.0.0.1',p))
while True:
    m.sendall(b'stats\n_\n\n'); r=m.recv(10000)
    if b'"waiters":%d'%n in r: break
    time.sleep(.05)
t=cpu(s.pid); w=time.time(); c.close()
while True:
    m.sendall(b'stats\n_\n\n'); r=m.recv(10000)
    if b'"waiters":0' in r: break
print('100,000 waiters of one connection that disconnects: %.0f ms wall, %.0f ms cpu'%((time.time()-w)*1000,cpu(s.pid)-t)); s.kill()

# through an agent
s,p,c=start(); up,q,c2=start(); d=tempfile.mkdtemp(); path=os.path.join(d,'agent')
ag=subprocess.Popen(['taskset','-c','0',BIN+'/dc_client','-listen','UNIX:'+path,'-server',f'IP:127.0.0.1:{q}'],stderr=subprocess.DEVNULL)
while not os.path.exists(path): time.sleep(.05)
time.sleep(.5)
for label,kw in (('c64',dict(conns=64)),('c512',dict(conns=512)),('c8 d16',dict(conns=8,depth=16)),('one key, 64',dict(conns=64,keys=1,proto='dflc'))):
    alone=load(f'tcp:127.0.0.1:{p}',str(s.pid),**kw); both=load('unix:'+path,f'{ag.pid},{up.pid}',**kw)
    print('%-12s server %.2f us/op, agent and server %.2f us/op, ratio %.2f'%(label,alone[0],both[0],both[0]/alone[0]),flush=True)
for x in (s,up,ag): x.kill()
