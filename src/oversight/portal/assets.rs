//! The files of the site, as they are in `site/`.

/// A file.
#[derive(Debug)]
pub(super) struct Asset {
    pub(super) path: &'static str,
    pub(super) bytes: &'static [u8],
}

macro_rules! assets {
    ($($path:literal,)*) => {
        &[$(Asset { path: $path, bytes: include_bytes!(concat!("site/", $path)) },)*]
    };
}

pub(super) const ALL: &[Asset] = assets![
    "app.js",
    "chart.js",
    "directory.js",
    "dom.js",
    "entry.js",
    "flow.js",
    "icon.svg",
    "index.html",
    "links.js",
    "opening.js",
    "pages/bodies.js",
    "pages/exchange.js",
    "pages/exchanges.js",
    "pages/grants.js",
    "pages/mydata.js",
    "pages/opendata.js",
    "pages/overview.js",
    "parts.css",
    "parts.js",
    "policy.js",
    "portal.css",
    "search.js",
    "source.js",
    "tally.js",
    "text.js",
    "text/en.ftl",
    "text/ky.ftl",
    "text/ru.ftl",
    "tlog.js",
    "vendor/fluent/LICENSE.txt",
    "vendor/fluent/builtins.js",
    "vendor/fluent/bundle.js",
    "vendor/fluent/index.js",
    "vendor/fluent/memoizer.js",
    "vendor/fluent/resolver.js",
    "vendor/fluent/resource.js",
    "vendor/fluent/scope.js",
    "vendor/fluent/types.js",
    "vendor/uplot/LICENSE.txt",
    "vendor/uplot/uPlot.iife.min.js",
    "vendor/uplot/uPlot.min.css",
    "verify.js",
];
