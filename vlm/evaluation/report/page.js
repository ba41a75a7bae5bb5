"use strict";
// The sample browser: sorts, filters and pages rows that lie in the page as JSON. Text goes in as text, never as HTML.
(() => {
  const PAGE = 24;
  const VERDICTS = { 2: "right", 1: "partly right", 0: "wrong" };
  const read = (id) => JSON.parse(document.getElementById(id).textContent);
  const pictures = read("pictures");

  // An element with a class, text, properties, and children; children that are null are left out.
  function el(tag, css, text, properties, ...children) {
    const made = document.createElement(tag);
    if (css) made.className = css;
    if (text !== null && text !== undefined) made.textContent = text;
    Object.assign(made, properties);
    made.append(...children.filter((child) => child));
    return made;
  }

  function picture(number, alt) {
    if (number === undefined || number === null) return el("div", "none", alt ? `no picture here: ${alt}` : "no picture");
    return el("img", "", null, { src: pictures[number], alt: alt, decoding: "async" });
  }

  function option(value, text) {
    return el("option", "", text, { value: value });
  }

  function labelled(name, control) {
    return el("label", "", name, {}, control);
  }

  const digits = (value) => (value === null ? "-" : String(Math.round(value * 1000) / 1000));

  function hasPicture(row) {
    return [...(row.pictures || []), ...(row.candidates || []).map((c) => c.picture)].some((n) => n !== undefined && n !== null);
  }

  function candidate(entry) {
    const score = entry.score === undefined ? "" : ` ${entry.score}`;
    return el("figure", entry.right ? "right" : "", null, {},
      picture(entry.picture, entry.text),
      el("figcaption", "", null, {}, entry.right ? el("b", "", "✓ right") : null, score));
  }

  function found(row) {
    const shown = row.candidates || [];
    if (shown.some((c) => c.picture !== undefined)) {
      const missed = (row.targets || []).map(candidate);
      return el("div", "found", null, {}, ...shown.map(candidate), ...missed);
    }
    const lines = shown.map((c) => el("li", c.right ? "right" : "", null, {},
      c.right ? el("b", "", "✓ ") : null, c.score === undefined ? c.text : `${c.text} (${c.score})`));
    return lines.length ? el("ol", "texts", null, {}, ...lines) : null;
  }

  function folded(css, label, text) {
    if (!text) return null;
    if (text.length < 300) return el("p", css, label + text);
    return el("details", "more", null, {}, el("summary", "", label + text.slice(0, 120) + " …"), el("p", css, text));
  }

  // Short answers on one line, captions one below the other, many of them folded.
  function references(said) {
    const texts = said.map(([text, count]) => (count > 1 ? `${text} ×${count}` : text));
    if (!texts.length) return null;
    if (texts.join("").length < 90) {
      return el("p", "refs", `${texts.length > 1 ? "References" : "Reference"}: `, {}, el("b", "", texts.join(", ")));
    }
    const list = el("ul", "refs", null, { ariaLabel: "references" }, ...texts.map((text) => el("li", "", text)));
    const head = `${texts.length} references`;
    if (texts.length > 6) return el("details", "more", null, {}, el("summary", "", head), list);
    return el("div", "", null, {}, el("p", "refs", `${head}:`), list);
  }

  function card(row, scores) {
    const left = (row.pictures || []).map((n) => picture(n, row.name || row.id));
    const text = row.name && !row.pictures ? [el("span", "", row.name)] : [];
    const verdict = row.verdict === undefined ? null : el("span", `tag v${row.verdict}`, VERDICTS[row.verdict]);
    const searched = row.candidates && row.prompt;
    const right = el("div", "", null, {},
      el("p", "head", null, {}, verdict, el("span", "id", `#${row.id}`), row.category ? el("span", "tag", row.category) : null, ...text),
      folded(searched ? "query" : "asked", "", row.prompt),
      row.candidates ? null : el("p", "answer", row.answer || "(nothing)"),
      folded("full", "Said in full: ", row.output),
      found(row),
      searched && row.candidates.some((c) => c.picture !== undefined) ? null : references(row.references || []),
      el("p", "scores", null, {}, ...scores.map((score, i) => row.scores[i] === null ? null
        : el("span", "", `${score.name} `, {}, el("b", "", digits(row.scores[i]))))));
    if (!left.length) return el("li", "card plain", null, {}, right);
    const clip = left.length > 1;
    return el("li", clip ? "card plain" : "card", null, {}, el("div", clip ? "strip" : "", null, {}, ...left), right);
  }

  function haystack(row) {
    if (row.hay === undefined) {
      const parts = [row.id, row.name, row.prompt, row.answer, row.output, ...(row.references || []).map((r) => r[0]),
        ...(row.candidates || []).map((c) => c.text)];
      row.hay = parts.filter(Boolean).join("\n").toLowerCase();
    }
    return row.hay;
  }

  // Worst (or best) first; rows without the score last; among equals the surest first, as in the choice of pictures.
  function compare(scores, index, best, sure) {
    if (index < 0) return (a, b) => (best ? b.at - a.at : a.at - b.at);
    const sign = (scores[index].direction === "down") !== best ? -1 : 1;
    return (a, b) => {
      const x = a.scores[index], y = b.scores[index];
      if (x === null || y === null) return (x === null) - (y === null) || a.at - b.at;
      return sign * (x - y) || (sure < 0 ? 0 : (b.scores[sure] || 0) - (a.scores[sure] || 0)) || a.at - b.at;
    };
  }

  function browse(home) {
    const { scores, sort, confidence, rows } = read(home.dataset.rows);
    if (!rows.length) return;
    let at = 0, best = false, timer = 0;
    const search = el("input", "", null, { type: "search", autocomplete: "off" });
    const by = el("select", "", null, {}, ...scores.map((s, i) => option(i, s.name)), option(-1, "order of the data"));
    by.value = sort;
    const categories = [...new Set(rows.map((row) => row.category).filter(Boolean))].sort();
    const category = el("select", "", null, {}, option("", "all"), ...categories.map((c) => option(c, c)));
    const seen = [2, 1, 0].filter((v) => rows.some((row) => row.verdict === v));
    const verdict = el("select", "", null, {}, option("", "all"), ...seen.map((v) => option(v, VERDICTS[v])));
    const pictured = el("input", "", null, { type: "checkbox" });
    const some = rows.some(hasPicture) && !rows.every(hasPicture);
    const first = el("button", "", "", { type: "button" }), last = el("button", "", "", { type: "button" });
    const status = el("p", "status", "", { role: "status" });
    const list = el("ul", "cards");
    const back = el("button", "", "‹ Previous", { type: "button" }), on = el("button", "", "Next ›", { type: "button" });
    const where = el("span", "status");

    function draw() {
      const index = Number(by.value), words = search.value.toLowerCase().split(/\s+/).filter(Boolean);
      const judged = index >= 0 && scores[index].direction !== "none";
      first.textContent = index < 0 ? "From the start" : judged ? "Worst first" : "Lowest first";
      last.textContent = index < 0 ? "From the end" : judged ? "Best first" : "Highest first";
      first.setAttribute("aria-pressed", String(!best));
      last.setAttribute("aria-pressed", String(best));
      const kept = rows.filter((row) => (!category.value || row.category === category.value)
        && (verdict.value === "" || row.verdict === Number(verdict.value))
        && (!pictured.checked || hasPicture(row)) && words.every((word) => haystack(row).includes(word)));
      kept.sort(compare(scores, index, best, confidence));
      const pages = Math.max(1, Math.ceil(kept.length / PAGE));
      at = Math.min(at, pages - 1);
      list.replaceChildren(...kept.slice(at * PAGE, (at + 1) * PAGE).map((row) => card(row, scores)));
      status.textContent = kept.length === rows.length ? `${kept.length.toLocaleString("en")} samples`
        : `${kept.length.toLocaleString("en")} of ${rows.length.toLocaleString("en")} samples`;
      where.textContent = `Page ${at + 1} of ${pages}`;
      pager.hidden = pages < 2;
      back.disabled = at === 0;
      on.disabled = at === pages - 1;
    }

    const restart = () => { at = 0; draw(); };
    const turn = (step) => { at += step; draw(); home.scrollIntoView({ block: "start" }); };
    search.addEventListener("input", () => { clearTimeout(timer); timer = setTimeout(restart, 120); });
    for (const control of [by, category, verdict, pictured]) control.addEventListener("change", restart);
    first.addEventListener("click", () => { best = false; restart(); });
    last.addEventListener("click", () => { best = true; restart(); });
    back.addEventListener("click", () => turn(-1));
    on.addEventListener("click", () => turn(1));
    const pager = el("nav", "pager", null, { ariaLabel: "pages of samples" }, back, where, on);
    home.append(
      el("div", "controls", null, {},
        labelled("Find", search),
        labelled("Sort by", by),
        el("div", "switch", null, { role: "group", ariaLabel: "order" }, first, last),
        categories.length > 1 ? labelled("Category", category) : null,
        seen.length > 1 ? labelled("Judged", verdict) : null,
        some ? el("label", "check", null, {}, pictured, "with pictures only") : null),
      status, list, pager);
    draw();
  }

  // A task's rows are read when its samples come near the window: twenty tasks open as fast as one.
  const homes = document.querySelectorAll(".samples");
  const watch = new IntersectionObserver((entries) => {
    for (const entry of entries) {
      if (!entry.isIntersecting) continue;
      watch.unobserve(entry.target);
      browse(entry.target);
    }
  }, { rootMargin: "1500px" });
  homes.forEach((home) => watch.observe(home));
})();
