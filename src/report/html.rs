//! Self-contained HTML pages: no scripts, no external resources, light and dark color schemes.

use maud::{DOCTYPE, Markup, PreEscaped, html};

use super::Figure;

/// Style sheet of all pages.
const STYLE: &str = "\
:root{color-scheme:light dark;--paper:#fff;--ink:#1f2328;--dim:#5a6370;--rule:#d5dae0;--mark:#eef4fa;--alarm:#8a1c00;--alarm-paper:#fff0e9}
@media (prefers-color-scheme:dark){:root{--paper:#15191e;--ink:#e6e9ed;--dim:#9aa5b1;--rule:#343c46;--mark:#1d2a37;--alarm:#ffb59c;--alarm-paper:#3a1d14}}
body{margin:0 auto;padding:1.5rem;max-width:1200px;background:var(--paper);color:var(--ink);font:15px/1.5 system-ui,sans-serif}
h1{font-size:1.5rem}h2{font-size:1.15rem;margin:2rem 0 .6rem}h3{font-size:1rem;margin:1.5rem 0 .3rem}p,li{max-width:75ch}
.scroll{overflow-x:auto}table{border-collapse:collapse;font-size:.92em}
th,td{padding:.3rem .6rem;border-bottom:1px solid var(--rule);text-align:left;white-space:nowrap}
th{color:var(--dim);font-weight:600;white-space:normal;vertical-align:bottom}.n{text-align:right;font-variant-numeric:tabular-nums}.best td{background:var(--mark);font-weight:600}
.scroll tr>:first-child{position:sticky;left:0;background:var(--paper)}
.long{min-width:16rem;white-space:normal;overflow-wrap:anywhere}
.scroll .best>:first-child{background:var(--mark)}
.gallery{display:flex;flex-wrap:wrap;gap:1.2rem 2rem}.group{font-size:.85rem;border-top:1px solid var(--rule);padding-top:.3rem}
.clips{display:flex;flex-wrap:wrap;gap:.6rem;margin-top:.3rem}.group b{display:block;max-width:20rem}summary{color:var(--dim);cursor:pointer}
.clip{width:96px;font-size:.75rem;line-height:1.25;white-space:normal;overflow-wrap:anywhere}.clip img{display:block;max-width:96px}
.missing{height:54px;padding:.3rem;box-sizing:border-box;border:1px dashed var(--dim);color:var(--dim);overflow:hidden}
.conclusion{font-size:1.1em;padding:.6rem .9rem;border-left:4px solid #0072b2;background:var(--mark);max-width:none}
.alarm{border:2px solid var(--alarm);background:var(--alarm-paper);color:var(--alarm);padding:.8rem 1rem;font-weight:700}
.warning{border-left:4px solid #e69f00;padding:.2rem .8rem;margin:.5rem 0;overflow-wrap:anywhere}
.side{display:grid;grid-template-columns:repeat(auto-fit,minmax(min(100%,420px),1fr));gap:1rem}figure{margin:0;overflow-x:auto}
svg{max-width:100%;height:auto}footer{color:var(--dim);font-size:.9em}";

/// Returns a page.
pub(super) fn page(title: &str, body: Markup) -> String {
    html! {
        (DOCTYPE)
        html lang="en" {
            head {
                meta charset="utf-8";
                meta name="viewport" content="width=device-width,initial-scale=1";
                title { (title) }
                style { (PreEscaped(STYLE)) }
            }
            body { (body) }
        }
    }
    .into_string()
}

/// Returns an inline figure.
pub(super) fn figure(figure: &Figure) -> Markup {
    html! { figure aria-label=(figure.caption) { (PreEscaped(&figure.svg)) } }
}

/// Returns a prominent alert.
pub(super) fn banner(text: &str) -> Markup {
    html! { div.alarm role="alert" { "⚠ " (text) } }
}
