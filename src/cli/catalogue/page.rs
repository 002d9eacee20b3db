//! The catalogue as one page for people: Kyrgyz, Russian and English in one file, readable on a phone, without scripts.
//!
//! The reader chooses the language with a radio button, and style sheets hide the other two; a browser that cannot do that shows all
//! three. Everything that comes from nodes is escaped.

mod words;

use std::fmt::Write;

use time::OffsetDateTime;
use time::format_description::well_known::Rfc3339;

use super::model::{Basis, FieldView, Granted, Method, Model, Names, Service, State};
use crate::oversight::monitor::page::{Language, date, escape};
use words::{Words, of};

const STYLE: &str = "\
:root{color-scheme:light dark;--good:#17663a;--bad:#a3201d;--line:#8886;--soft:#8881}\
@media (prefers-color-scheme:dark){:root{--good:#5fc48a;--bad:#ff9c96}}\
*{box-sizing:border-box}body{font:1rem/1.5 system-ui,sans-serif;max-width:60rem;margin:0 auto;padding:1rem}\
h1{font-size:1.4rem;margin:.5rem 0}h2{font-size:1.15rem;margin:2.2rem 0 .2rem;overflow-wrap:anywhere}h3{font-size:1rem;margin:1.1rem 0 .3rem}\
fieldset{border:1px solid var(--line);border-radius:.4rem;padding:.2rem .8rem;margin:0}legend{font-size:.85rem}\
label{margin-right:1rem;display:inline-block;padding:.2rem 0}p{margin:.3rem 0}nav ul{padding-left:1.2rem}\
details{border:1px solid var(--line);border-left:.4rem solid var(--bad);border-radius:.4rem;padding:.2rem .9rem;margin:.6rem 0}\
details.good{border-left-color:var(--good)}summary{cursor:pointer;padding:.4rem 0;overflow-wrap:anywhere}summary b{font-size:1.05rem}\
.state{color:var(--bad);font-weight:600}.good .state,.open{color:var(--good)}.withheld,.partly{color:var(--bad)}\
dl{display:grid;grid-template-columns:minmax(7rem,auto) 1fr;gap:.2rem 1rem;margin:.4rem 0}dt{font-weight:600}dd{margin:0;overflow-wrap:anywhere}\
.grant{background:var(--soft);border-radius:.4rem;padding:.1rem .8rem;margin:.5rem 0}\
.wide{overflow-x:auto}table{border-collapse:collapse;width:100%;font-size:.95rem}\
th,td{text-align:left;font-weight:400;vertical-align:top;padding:.3rem .7rem .3rem 0;border-bottom:1px solid var(--line)}thead th{font-weight:600}th[scope=row]{overflow-wrap:anywhere;min-width:9rem}\
code,.small{font-size:.85rem;overflow-wrap:anywhere}.small{opacity:.85}\
pre{background:var(--soft);border-radius:.4rem;padding:.6rem .8rem;white-space:pre-wrap;overflow-wrap:anywhere;font-size:.85rem}\
@supports selector(:has(a)){\
body:has(#ky:checked) .t:not([lang=ky]),body:has(#ru:checked) .t:not([lang=ru]),body:has(#en:checked) .t:not([lang=en]){display:none}}\
@media (max-width:30rem){dl{grid-template-columns:1fr;gap:0}dd{margin-bottom:.4rem}table{font-size:.85rem}th,td{padding-right:.4rem}th[scope=row]{min-width:7.5rem}}\
@media print{fieldset{display:none}details{break-inside:avoid}}";

/// The whole page.
pub(super) fn html(model: &Model) -> String {
    let mut page = String::with_capacity(32 << 10);
    // Writing to a String does not fail.
    let _ = write!(
        page,
        "<!doctype html><html lang=\"ky\"><head><meta charset=\"utf-8\">\
         <meta name=\"viewport\" content=\"width=device-width,initial-scale=1\"><title>{} · {}</title>\
         <style>{STYLE}</style></head><body><header><fieldset><legend>Тил · Язык · Language</legend>",
        of(Language::Kyrgyz).title,
        escape(&model.system),
    );
    for language in Language::ALL {
        let (code, name) = (language.code(), language.name());
        let checked = if language == Language::Kyrgyz { " checked" } else { "" };
        let _ = write!(
            page,
            "<label lang=\"{code}\"><input type=\"radio\" name=\"language\" id=\"{code}\"{checked}> {name}</label>"
        );
    }
    page.push_str("</fieldset>");
    let _ = write!(
        page,
        "<h1>{}</h1></header><main><p>{}</p><p><code>{}</code></p><p class=\"small\">{}</p>",
        say(|w| w.title),
        say(|w| w.about),
        escape(&model.system),
        in_each(|language, w| format!(
            "{} {} · {} {}",
            w.made,
            when(&model.at, language),
            w.directory,
            model.directory_version
        )),
    );
    if !model.not_asked.is_empty() {
        let _ = write!(page, "<p class=\"state\">{}</p><ul>", say(|w| w.not_asked));
        for (member, reason) in &model.not_asked {
            let _ =
                write!(page, "<li>{} <span class=\"small\" lang=\"en\">{}</span></li>", escape(member), escape(reason));
        }
        page.push_str("</ul>");
    }
    if model.services.is_empty() {
        let _ = write!(page, "<p>{}</p>", say(|w| w.nothing));
    } else {
        contents(&mut page, model);
    }
    for (at, service) in model.services.iter().enumerate() {
        of_service(&mut page, at, service);
    }
    page.push_str("</main></body></html>");
    page
}

fn contents(page: &mut String, model: &Model) {
    let _ = write!(page, "<nav aria-labelledby=\"services\"><h2 id=\"services\">{}</h2><ul>", say(|w| w.services));
    for (at, service) in model.services.iter().enumerate() {
        let callable = service.methods.iter().filter(|method| method.state == State::Callable).count();
        let _ = write!(
            page,
            "<li><a href=\"#s{at}\"><code>{}</code></a> · {} · {}: {callable}/{}</li>",
            escape(&service.service),
            names(&service.member),
            in_each(|_, w| w.state(State::Callable).to_owned()),
            service.methods.len(),
        );
    }
    page.push_str("</ul></nav>");
}

fn of_service(page: &mut String, at: usize, service: &Service) {
    let _ = write!(
        page,
        "<section aria-labelledby=\"s{at}\"><h2 id=\"s{at}\">{}</h2><p>{}: {} <code>{}</code></p>",
        escape(&service.service),
        say(|w| w.provider),
        names(&service.member),
        escape(&service.provider),
    );
    if service.of_node {
        let _ = write!(page, "<p>{}</p>", say(|w| w.of_node));
    }
    service.methods.iter().for_each(|method| of_method(page, method));
    page.push_str("</section>");
}

fn of_method(page: &mut String, method: &Method) {
    let good = if method.state == State::Callable { " class=\"good\"" } else { "" };
    let _ = write!(
        page,
        "<details{good}><summary><b>{}</b> · <span class=\"state\">{}</span></summary>",
        escape(&method.name),
        in_each(|_, w| w.state(method.state).to_owned()),
    );
    if let (Some(kind), Some(request), Some(response)) = (method.kind, &method.request, &method.response) {
        let _ = write!(
            page,
            "<p>{}: <code>{}</code> → <code>{}</code></p>",
            in_each(|_, w| w.kind(kind).to_owned()),
            escape(request),
            escape(response)
        );
    }
    if !method.purposes.is_empty() {
        let _ = write!(page, "<h3>{}</h3><ul>", say(|w| w.purposes));
        for basis in &method.purposes {
            let _ = write!(page, "<li>{}</li>", lawful(basis));
        }
        page.push_str("</ul>");
    }
    method.grants.iter().for_each(|grant| of_grant(page, grant, method.publication.as_deref()));
    if !method.request_fields.is_empty() {
        of_fields(page, &say(|w| w.request), &method.request_fields);
    }
    if !method.response_fields.is_empty() {
        of_fields(page, &say(|w| w.response), &method.response_fields);
    }
    if let Some(example) = &method.example {
        let _ = write!(page, "<h3>{}</h3><pre>{}</pre>", say(|w| w.example), escape(&example.kopuro));
        if let Some(rule) = &example.breaks {
            let _ = write!(page, "<p class=\"small\" lang=\"en\">{}</p>", escape(rule));
        }
        if let Some(curl) = &example.curl {
            let _ = write!(page, "<pre>{}</pre>", escape(curl));
        }
    }
    if let Some(ask) = &method.how_to_ask {
        let _ = write!(page, "<h3>{}</h3><pre>{}</pre>", say(|w| w.how_to_ask), escape(ask));
    }
    page.push_str("</details>");
}

fn of_grant(page: &mut String, grant: &Granted, by_method: Option<&str>) {
    let _ = write!(page, "<dl class=\"grant\"><dt>{}</dt><dd>{}", say(|w| w.basis), lawful(&grant.basis));
    if !grant.in_force {
        let _ = write!(page, " <span class=\"state\">({})</span>", say(|w| w.not_in_force));
    }
    page.push_str("</dd>");
    let mut row = |name: &str, value: &str| {
        let _ = write!(page, "<dt>{name}</dt><dd>{value}</dd>");
    };
    let until = |w: &Words| grant.until.clone().unwrap_or_else(|| w.no_end.to_owned());
    let validity = in_each(|_, w| match &grant.from {
        Some(from) => format!("{from} – {}", until(w)),
        None if grant.until.is_none() => w.no_end.to_owned(),
        None => format!("… – {}", until(w)),
    });
    row(&say(|w| w.validity), &validity);
    let rate = in_each(|_, w| match grant.per_second {
        Some(rate) => w.per_second.replace('#', &rate.to_string()),
        None => w.no_rate.to_owned(),
    });
    row(&say(|w| w.rate), &rate);
    let fields = match grant.allowed {
        "everything" => say(|w| w.all_fields),
        "categories" => {
            let categories = |w: &Words| grant.named.iter().map(|one| w.category(one)).collect::<Vec<_>>().join(", ");
            in_each(|_, w| categories(w))
        }
        _ => format!("<code>{}</code>", escape(&grant.named.join(", "))),
    };
    row(&say(|w| w.fields), &fields);
    // Where neither says anything, all is published.
    let class = grant.publication.as_deref().or(by_method).unwrap_or("public");
    let class = in_each(|_, w| w.class(class));
    row(&say(|w| w.publication), &class);
    page.push_str("</dl>");
}

fn of_fields(page: &mut String, title: &str, fields: &[FieldView]) {
    let bases: Vec<&String> = fields[0].crosses.keys().collect();
    let _ = write!(
        page,
        "<h3>{title}</h3><div class=\"wide\" tabindex=\"0\"><table><thead><tr><th scope=\"col\">{}</th><th scope=\"col\">{}</th>",
        say(|w| w.field),
        say(|w| w.personal)
    );
    for basis in &bases {
        let _ = write!(page, "<th scope=\"col\"><code>{}</code></th>", escape(basis));
    }
    page.push_str("</tr></thead><tbody>");
    for field in fields {
        let _ = write!(
            page,
            "<tr><th scope=\"row\"><code>{}</code><br><span class=\"small\">{}{}</span></th><td>{}</td>",
            escape(&field.path),
            escape(&field.kind),
            marks(field),
            in_each(|_, w| field.categories.iter().map(|one| w.category(one)).collect::<Vec<_>>().join(", ")),
        );
        for basis in &bases {
            let crosses = field.crosses.get(*basis).copied().unwrap_or_default();
            let words = in_each(|_, w| match crosses {
                "open" => w.open.to_owned(),
                "partly" => w.partly.to_owned(),
                _ => w.withheld.to_owned(),
            });
            let _ = write!(page, "<td class=\"{crosses}\">{words}</td>");
        }
        page.push_str("</tr>");
    }
    page.push_str("</tbody></table></div>");
}

fn marks(field: &FieldView) -> String {
    let mut marks = String::new();
    for (set, mark) in [
        (field.repeated, say(|w| w.repeated)),
        (field.subject, say(|w| w.subject)),
        (field.commit, say(|w| w.committed)),
    ] {
        if set {
            let _ = write!(marks, " · {mark}");
        }
    }
    marks
}

/// The code, the law, and its text in each language.
fn lawful(basis: &Basis) -> String {
    let mut told = format!("<code>{}</code>", escape(&basis.code));
    if !basis.law.is_empty() {
        let _ = write!(told, " {}", escape(&basis.law));
    }
    let text = |language| match language {
        Language::Kyrgyz => &basis.ky,
        Language::Russian => &basis.ru,
        Language::English => &basis.en,
    };
    if Language::ALL.into_iter().any(|language| !text(language).is_empty()) {
        let _ = write!(told, "<br>{}", in_each(|language, _| text(language).clone()));
    }
    told
}

fn names(member: &Names) -> String {
    let name = |language| match language {
        Language::Kyrgyz => &member.ky,
        Language::Russian => &member.ru,
        Language::English => &member.en,
    };
    in_each(|language, _| name(language).clone())
}

/// Bishkek's time, as each language writes it.
fn when(rfc3339: &str, language: Language) -> String {
    OffsetDateTime::parse(rfc3339, &Rfc3339)
        .map_or_else(|_| rfc3339.to_owned(), |at| date(at.unix_timestamp() * 1_000, language))
}

/// Fixed words, in each language.
fn say(words: impl Fn(&'static Words) -> &'static str) -> String {
    in_each(|_, all| words(all).to_owned())
}

/// A text in each language, of which one is shown.
fn in_each(text: impl Fn(Language, &'static Words) -> String) -> String {
    let mut each = String::new();
    for language in Language::ALL {
        let text = escape(&text(language, of(language)));
        let _ = write!(each, "<span class=\"t\" lang=\"{}\">{text}</span>", language.code());
    }
    each
}
