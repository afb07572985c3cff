"use strict";
(() => {
  const PAGE = 100;
  const byId = id => document.getElementById(id);
  const { rows, tones, verdicts } = JSON.parse(byId("data").textContent);
  const body = document.querySelector("#table tbody");
  const heads = [...document.querySelectorAll("#table th[data-key]")];
  const chips = [...document.querySelectorAll(".chip")];
  const place = new Map(verdicts.map((name, at) => [name, at]));
  const order = new Intl.Collator("en", { numeric: true });
  rows.forEach((row, at) => {
    row.at = at;
    row.sought = [row.model, row.verb, row.family, row.shape, row.texts.join(" "), row.reason, row.verdict, row.file].join("\n").toLowerCase();
  });
  const sorted = new Map(); // key → rows in that order, made when first asked for
  const state = { key: "verdict", down: false, page: 0, shown: rows };

  const element = (name, text, kind) => {
    const made = document.createElement(name);
    if (text !== undefined) made.textContent = text; // text alone: nothing of a report is read as markup
    if (kind) made.className = kind;
    return made;
  };
  const lines = (cell, texts, kind) => texts.forEach((text, at) => {
    if (at) cell.append(element("br"));
    cell.append(element("span", text, kind));
  });
  const drawn = row => {
    const line = element("tr");
    const model = element("td"), link = element("a", row.model), family = element("td"), found = element("td");
    if (row.link.startsWith("./") || row.link.startsWith("../")) link.href = row.link;
    model.append(link, element("br"), element("span", row.verb, "dim"));
    family.append(row.family, element("br"), element("span", row.shape, "dim"));
    lines(found, row.texts, "text");
    line.append(element("td", row.verdict, `${tones[row.verdict]} whole`), model, family, found,
      element("td", row.said[0] + (row.tail ? "*" : ""), "whole"), element("td", row.said[1], "whole"), element("td", row.said[2], "whole"),
      element("td", row.reason), element("td", row.date, "whole"));
    return line;
  };

  const figure = key => key === "p" || key === "q" || key === "holm";
  const inOrder = key => {
    if (!sorted.has(key)) {
      const value = key === "verdict" ? row => place.get(row.verdict) : figure(key) ? row => row[key] < 0 ? 2 : row[key] : null;
      const text = key === "texts" ? row => row.texts.join(" ") : key === "family" ? row => `${row.family} ${row.shape}` : row => row[key];
      const keyed = rows.map(row => [value ? value(row) : text(row), row]);
      const compare = value ? (a, b) => a[0] - b[0] : key === "date" ? (a, b) => (a[0] < b[0] ? -1 : a[0] > b[0] ? 1 : 0) : (a, b) => order.compare(a[0], b[0]);
      keyed.sort((a, b) => compare(a, b) || a[1].at - b[1].at);
      sorted.set(key, keyed.map(pair => pair[1]));
    }
    return sorted.get(key);
  };

  const show = () => {
    const pages = Math.max(1, Math.ceil(state.shown.length / PAGE));
    state.page = Math.min(Math.max(0, state.page), pages - 1);
    const part = state.shown.slice(state.page * PAGE, (state.page + 1) * PAGE);
    const fragment = document.createDocumentFragment();
    part.forEach(row => fragment.append(drawn(row)));
    if (!part.length) {
      const line = element("tr", undefined, "none"), cell = element("td", "No report fits these filters.");
      cell.colSpan = heads.length;
      line.append(cell);
      fragment.append(line);
    }
    body.replaceChildren(fragment);
    byId("shown").textContent = `${state.shown.length.toLocaleString("en")} of ${rows.length.toLocaleString("en")} reports`;
    byId("pager").hidden = pages === 1;
    byId("at").textContent = `page ${state.page + 1} of ${pages}`;
    byId("before").disabled = state.page === 0;
    byId("after").disabled = state.page === pages - 1;
  };
  const choose = () => {
    const sought = byId("search").value.trim().toLowerCase(), family = byId("family").value, verb = byId("verb").value;
    const wanted = new Set(chips.filter(chip => chip.getAttribute("aria-pressed") === "true").map(chip => chip.dataset.verdict));
    const fits = row => (!wanted.size || wanted.has(row.verdict)) && (!family || row.family === family) && (!verb || row.verb === verb)
      && (!sought || row.sought.includes(sought));
    const found = inOrder(state.key).filter(fits);
    state.shown = state.down ? found.reverse() : found;
    state.page = 0;
    show();
  };

  const options = (id, key) => [...new Set(rows.map(row => row[key]))].sort(order.compare).slice(0, 200).forEach(name => {
    const option = element("option", name);
    option.value = name;
    byId(id).append(option);
  });
  options("family", "family");
  options("verb", "verb");
  heads.forEach(head => {
    const button = element("button", head.textContent);
    button.type = "button";
    head.replaceChildren(button);
    button.addEventListener("click", () => {
      state.down = state.key === head.dataset.key && !state.down;
      state.key = head.dataset.key;
      heads.forEach(other => other.removeAttribute("aria-sort"));
      head.setAttribute("aria-sort", state.down ? "descending" : "ascending");
      choose();
    });
  });
  chips.forEach(chip => chip.addEventListener("click", () => {
    chip.setAttribute("aria-pressed", String(chip.getAttribute("aria-pressed") !== "true"));
    choose();
  }));
  byId("search").addEventListener("input", choose);
  byId("family").addEventListener("change", choose);
  byId("verb").addEventListener("change", choose);
  const turn = by => { state.page += by; show(); document.getElementById("reports").scrollIntoView(); };
  byId("before").addEventListener("click", () => turn(-1));
  byId("after").addEventListener("click", () => turn(1));
  byId("tools").hidden = false;
  show();
})();
