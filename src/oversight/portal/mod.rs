//! The oversight portal: pages for people that show what logs publish, and check it in the browser.
//!
//! In: which logs, whose keys, which witnesses, where the monitor reports ([`Sources`]). Out: the files of a static site
//! ([`Site`]). They work from any web server and from a node's own publication; there is no back-end but what is published. The pages
//! themselves are plain modules, styles and Fluent files in `site/`, compiled into the binary as they are: `docs/portal.md`.
//!
//! Nothing from a log becomes markup, nothing is loaded from another host than the logs', and a Content-Security-Policy holds the
//! pages to both, in a header where the server can send one and in the page itself where it cannot.

mod assets;

use std::path::Path;

use bytes::Bytes;
use http::HeaderName;
use serde::Serialize;
use sha2::{Digest, Sha256};

use super::publish::Served;
use crate::trust::note::Verifier;

/// The first page.
pub const INDEX: &str = "index.html";
/// A file that tells one version of the site from another.
pub const VERSION: &str = "version.txt";
/// It is no larger.
pub const MOST_VERSION: usize = 1 << 10;
const CONFIG: &str = "portal.json";

const SHORT: &str = "public, max-age=60";
/// Plain text.
pub const TEXT: Served = Served { content_type: "text/plain; charset=utf-8", cache: SHORT };
/// A picture.
pub const ICON: Served = Served { content_type: "image/svg+xml", cache: SHORT };

/// What in `index.html` stands for where the page may fetch from.
const CONNECT: &str = "connect-src 'self'";

/// What a portal shows: written beside its pages as `portal.json`.
#[derive(Debug, Clone, Serialize)]
pub struct Sources {
    /// The logs.
    pub logs: Vec<LogSource>,
    /// Who cosigns, as a C2SP tlog-policy; none: cosignatures are not asked for.
    pub policy: Option<String>,
    /// Where the monitor's report is, as a URL or relative to the portal; none where there is no monitor.
    pub monitor: Option<String>,
}

impl Sources {
    /// The same, with a log's new key in the place of the one that it had.
    pub fn with_key(&self, key: &Verifier) -> Self {
        let mut renewed = self.clone();
        let is_its = |vkey: &str| vkey.parse::<Verifier>().is_ok_and(|old| old.name() == key.name());
        for log in renewed.logs.iter_mut().filter(|log| is_its(&log.vkey)) {
            log.vkey = key.to_string();
        }
        renewed
    }
}

/// A published log.
#[derive(Debug, Clone, Serialize, serde::Deserialize)]
#[serde(deny_unknown_fields)]
pub struct LogSource {
    /// Where it is published, as a URL or relative to the portal.
    pub url: String,
    /// Its public key.
    pub vkey: String,
}

/// The files of a portal.
#[derive(Debug)]
pub struct Site {
    index: Bytes,
    config: Bytes,
    version: Bytes,
    policy: String,
}

impl Site {
    /// A portal that shows these logs.
    pub fn new(sources: &Sources) -> Self {
        let page = assets::ALL.iter().find(|asset| asset.path == INDEX).map_or(&[][..], |asset| asset.bytes);
        let page = String::from_utf8_lossy(page);
        let connect = others(sources).into_iter().fold(CONNECT.to_owned(), |connect, origin| connect + " " + &origin);
        let index = page.replace(CONNECT, &connect);
        let meta = index
            .split_once("http-equiv=\"Content-Security-Policy\" content=\"")
            .and_then(|(_, rest)| rest.split_once('"'));
        // Framing cannot be forbidden from within the page.
        let policy = format!("{}; frame-ancestors 'none'", meta.map_or("default-src 'none'", |(policy, _)| policy));
        let mut value = serde_json::to_value(sources).unwrap_or_default();
        value["format"] = "kopuro-portal/v1".into();
        let config = format!("{value:#}\n");
        let mut digest = Sha256::new();
        for asset in assets::ALL {
            digest.update(asset.path);
            digest.update(asset.bytes);
        }
        digest.update(&index);
        digest.update(&config);
        let version = format!("kopuro {} {}\n", env!("CARGO_PKG_VERSION"), hex::encode(digest.finalize()));
        Self { index: index.into(), config: config.into(), version: version.into(), policy }
    }

    /// Path below the portal's, content, and how it is served. The page that leads to all others comes last.
    pub fn files(&self) -> impl Iterator<Item = (&'static str, Bytes, Served)> {
        let assets = assets::ALL.iter().filter(|asset| asset.path != INDEX);
        let assets = assets.map(|asset| (asset.path, Bytes::from_static(asset.bytes), served(asset.path)));
        assets.chain([(CONFIG, self.config.clone(), served(CONFIG)), (INDEX, self.index.clone(), served(INDEX))])
    }

    /// One of the files.
    pub fn file(&self, path: &str) -> Option<(&'static str, Bytes, Served)> {
        if path == VERSION {
            return Some((VERSION, self.version(), TEXT));
        }
        self.files().find(|(name, ..)| *name == path)
    }

    /// Content of [`VERSION`].
    pub fn version(&self) -> Bytes {
        self.version.clone()
    }

    /// What a server says with each of them.
    pub fn headers(&self) -> [(HeaderName, &str); 4] {
        [
            (http::header::CONTENT_SECURITY_POLICY, &self.policy),
            (http::header::REFERRER_POLICY, "no-referrer"),
            (HeaderName::from_static("cross-origin-opener-policy"), "same-origin"),
            (HeaderName::from_static("permissions-policy"), "camera=(), geolocation=(), microphone=()"),
        ]
    }

    /// Writes the files to a folder.
    pub fn write(&self, folder: &Path) -> std::io::Result<()> {
        for (path, bytes, _) in self.files() {
            let path = folder.join(path);
            if let Some(parent) = path.parent() {
                std::fs::create_dir_all(parent)?;
            }
            std::fs::write(path, bytes)?;
        }
        std::fs::write(folder.join(VERSION), &self.version)
    }
}

/// A witness policy without what only the logs need: where witnesses are asked, and which logs.
pub fn public_policy(policy: &str) -> String {
    let lines = policy.lines().filter_map(|line| {
        let fields: Vec<&str> = line.split_whitespace().collect();
        match fields[..] {
            ["witness", name, key, ..] => Some(format!("witness {name} {key}\n")),
            ["group" | "quorum", ..] => Some(fields.join(" ") + "\n"),
            _ => None,
        }
    });
    lines.collect()
}

/// Origins of logs and monitor that are not the portal's own.
fn others(sources: &Sources) -> Vec<String> {
    let urls = sources.logs.iter().map(|log| log.url.as_str()).chain(sources.monitor.as_deref());
    let mut origins: Vec<String> = urls.filter_map(origin).collect();
    origins.sort();
    origins.dedup();
    origins
}

/// `https://host:port` of a URL; none of what is relative.
fn origin(url: &str) -> Option<String> {
    let uri = url.parse::<http::Uri>().ok()?;
    let (scheme, authority) = (uri.scheme_str()?, uri.authority()?);
    let plain = |byte: u8| byte.is_ascii_alphanumeric() || b".-:[]".contains(&byte);
    authority.as_str().bytes().all(plain).then(|| format!("{scheme}://{authority}"))
}

fn served(path: &str) -> Served {
    let content_type = match path.rsplit_once('.').map_or("", |(_, end)| end) {
        "html" => "text/html; charset=utf-8",
        "js" => "text/javascript; charset=utf-8",
        "css" => "text/css; charset=utf-8",
        "json" => "application/json",
        "svg" => return ICON,
        _ => return TEXT,
    };
    Served { content_type, cache: SHORT }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn every_file_of_the_site_is_in_the_binary() {
        let site = Path::new(env!("CARGO_MANIFEST_DIR")).join("src/oversight/portal/site");
        let mut folders = vec![site.clone()];
        let mut found = Vec::new();
        while let Some(folder) = folders.pop() {
            for file in std::fs::read_dir(folder).unwrap() {
                let path = file.unwrap().path();
                if path.is_dir() {
                    folders.push(path);
                } else {
                    found.push(path.strip_prefix(&site).unwrap().to_string_lossy().into_owned());
                }
            }
        }
        found.sort();
        let mut listed: Vec<&str> = assets::ALL.iter().map(|asset| asset.path).collect();
        listed.sort_unstable();
        assert_eq!(found, listed);
    }

    #[test]
    fn every_language_says_everything() {
        let text = |path: &str| {
            let asset = assets::ALL.iter().find(|asset| asset.path == path).unwrap();
            std::str::from_utf8(asset.bytes).unwrap()
        };
        let names = |path: &str| -> std::collections::BTreeSet<&str> {
            let lines = text(path).lines().filter(|line| line.starts_with(|c: char| c.is_ascii_lowercase()));
            lines.filter_map(|line| Some(line.split_once(" =")?.0)).collect()
        };
        let english = names("text/en.ftl");
        assert!(english.len() > 300);
        assert_eq!(english, names("text/ru.ftl"));
        assert_eq!(english, names("text/ky.ftl"));
        // And what a page asks for by a whole name is there.
        for asset in
            assets::ALL.iter().filter(|asset| asset.path.ends_with(".js") && !asset.path.starts_with("vendor/"))
        {
            for (_, rest) in text(asset.path).match_indices(" t('").map(|(at, _)| text(asset.path).split_at(at + 4)) {
                let name = rest.split('\'').next().unwrap();
                assert!(english.contains(name), "{}: {name}", asset.path);
            }
        }
    }

    #[test]
    fn a_page_may_fetch_from_its_logs_and_nobody_else() {
        let log = |url: &str| LogSource { url: url.into(), vkey: "k".into() };
        let logs = vec![log("../"), log("https://a.example:8443/log"), log("https://a.example:8443/other")];
        let site = Site::new(&Sources { logs, policy: None, monitor: Some("report.json".into()) });
        let [(_, policy), ..] = site.headers();
        assert!(policy.contains("connect-src 'self' https://a.example:8443; "), "{policy}");
        assert!(policy.starts_with("default-src 'none'; script-src 'self'; style-src 'self'"), "{policy}");
        assert!(!policy.contains("unsafe") && policy.ends_with("frame-ancestors 'none'"), "{policy}");
        let (_, page, served) = site.file(INDEX).unwrap();
        assert_eq!(served.content_type, "text/html; charset=utf-8");
        assert!(String::from_utf8_lossy(&page).contains("connect-src 'self' https://a.example:8443;"));
        assert_eq!(origin("https://a.example/x;y"), Some("https://a.example".into()));
        assert_eq!(origin("https://a;b/x"), None);
        let policy = "# who\nlog a.example/log+0+A\nwitness w w+1+B http://10.0.0.1/\nquorum w\n";
        assert_eq!(public_policy(policy), "witness w w+1+B\nquorum w\n");
        // Another list of logs is another version.
        assert_ne!(site.version(), Site::new(&Sources { logs: vec![], policy: None, monitor: None }).version());
    }
}
