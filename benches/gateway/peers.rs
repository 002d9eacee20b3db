//! The peers: nginx's `grpc_pass` and HAProxy, as Debian packages them, set up as fairly as their manuals allow: one hop,
//! mutual TLS 1.3 on both sides with both sides verified, a worker per core, connections kept alive, nothing logged.

use std::fs;
use std::net::{SocketAddr, TcpListener, TcpStream};
use std::path::Path;
use std::process::{Command, Stdio};
use std::time::{Duration, Instant};

use anyhow::{Result, bail};

use crate::certs::{Certificates, PROVIDER_NODE};
use crate::process::Process;

/// A peer that runs.
#[derive(Debug)]
pub(crate) struct Peer {
    pub(crate) process: Process,
    pub(crate) address: SocketAddr,
}

/// How one is started, given a folder for its files and the back-end's address.
pub(crate) type Start = fn(&Path, &Certificates, SocketAddr) -> Result<Option<Peer>>;

/// nginx, or nothing where it is not installed.
pub(crate) fn nginx(folder: &Path, certificates: &Certificates, backend: SocketAddr) -> Result<Option<Peer>> {
    let Some(program) = installed("nginx") else { return Ok(None) };
    let folder = folder.join("nginx");
    fs::create_dir_all(&folder)?;
    let address = free_address()?;
    let (root, certificate, key) =
        (certificates.root(), certificates.certificate(PROVIDER_NODE), certificates.key(PROVIDER_NODE));
    let configuration = format!(
        "daemon off;
worker_processes {workers};
worker_rlimit_nofile 16384;
error_log stderr crit;
pid {folder}/pid;
events {{ worker_connections 8192; }}
http {{
  access_log off;
  client_body_temp_path {folder}/body;
  proxy_temp_path {folder}/proxy;
  fastcgi_temp_path {folder}/fastcgi;
  uwsgi_temp_path {folder}/uwsgi;
  scgi_temp_path {folder}/scgi;
  client_max_body_size 0;
  keepalive_requests 1000000000;
  keepalive_timeout 1h;
  http2_max_concurrent_streams 1024;
  upstream echo {{
    server {backend};
    keepalive 1024;
    keepalive_requests 1000000000;
    keepalive_timeout 1h;
  }}
  server {{
    listen {address} ssl http2 reuseport backlog=1024;
    server_name localhost;
    ssl_protocols TLSv1.3;
    ssl_certificate {certificate};
    ssl_certificate_key {key};
    ssl_client_certificate {root};
    ssl_verify_client on;
    ssl_verify_depth 3;
    location / {{
      grpc_pass grpcs://echo;
      grpc_ssl_protocols TLSv1.3;
      grpc_ssl_certificate {certificate};
      grpc_ssl_certificate_key {key};
      grpc_ssl_trusted_certificate {root};
      grpc_ssl_verify on;
      grpc_ssl_verify_depth 3;
      grpc_ssl_name localhost;
      grpc_ssl_server_name on;
      grpc_read_timeout 1h;
      grpc_send_timeout 1h;
    }}
  }}
}}
",
        workers = crate::cores(),
        folder = folder.display(),
        root = root.display(),
        certificate = certificate.display(),
        key = key.display(),
    );
    let file = folder.join("nginx.conf");
    fs::write(&file, configuration)?;
    let process = Process::peer(
        "nginx",
        Command::new(program).arg("-p").arg(&folder).arg("-c").arg(&file).stdout(Stdio::null()),
    )?;
    Ok(Some(listening(process, address)?))
}

/// HAProxy, or nothing where it is not installed.
pub(crate) fn haproxy(folder: &Path, certificates: &Certificates, backend: SocketAddr) -> Result<Option<Peer>> {
    let Some(program) = installed("haproxy") else { return Ok(None) };
    let folder = folder.join("haproxy");
    fs::create_dir_all(&folder)?;
    let address = free_address()?;
    let configuration = format!(
        "global
  nbthread {threads}
  maxconn 4000
  ssl-default-bind-options ssl-min-ver TLSv1.3
  ssl-default-server-options ssl-min-ver TLSv1.3
  tune.h2.max-concurrent-streams 1024
defaults
  mode http
  timeout connect 5s
  timeout client 1h
  timeout server 1h
  http-reuse always
frontend systems
  bind {address} ssl crt {both} ca-file {root} verify required alpn h2
  default_backend echo
backend echo
  server echo {backend} ssl alpn h2 crt {both} ca-file {root} verify required verifyhost localhost sni str(localhost)
",
        threads = crate::cores(),
        both = certificates.both(PROVIDER_NODE).display(),
        root = certificates.root().display(),
    );
    let file = folder.join("haproxy.cfg");
    fs::write(&file, configuration)?;
    let process = Process::peer(
        "haproxy",
        Command::new(program).arg("-db").arg("-q").arg("-f").arg(&file).stdout(Stdio::null()),
    )?;
    Ok(Some(listening(process, address)?))
}

/// The first line of what a peer says of its version, or nothing where it is not installed.
pub(crate) fn version(name: &str) -> Option<String> {
    let output = Command::new(installed(name)?).arg("-v").output().ok()?;
    let text = [output.stdout, output.stderr].concat();
    Some(String::from_utf8_lossy(&text).lines().next()?.to_owned())
}

/// Debian keeps both in /usr/sbin, which is not on every user's path.
fn installed(name: &str) -> Option<std::path::PathBuf> {
    let path = std::env::var_os("PATH").unwrap_or_default();
    std::env::split_paths(&path).chain(["/usr/sbin".into()]).map(|folder| folder.join(name)).find(|file| file.is_file())
}

/// An address of this machine at which nothing listens.
pub(crate) fn free_address() -> Result<SocketAddr> {
    Ok(TcpListener::bind("127.0.0.1:0")?.local_addr()?)
}

fn listening(mut process: Process, address: SocketAddr) -> Result<Peer> {
    let limit = Instant::now() + Duration::from_secs(10);
    while TcpStream::connect(address).is_err() {
        if !process.alive() || Instant::now() > limit {
            bail!("{} does not listen at {address}", process.label);
        }
        std::thread::sleep(Duration::from_millis(20));
    }
    Ok(Peer { process, address })
}
