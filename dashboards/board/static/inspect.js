// What a panel asked and what it was told: the SQL, the rows, the CSV.

import { ask, make, prefix } from "./dom.js";
import { table } from "./table.js";

export async function inspect(panel) {
  const rows = make("div", { class: "inspect-rows" }, make("p", { class: "placeholder" }, "loading …"));
  const sql = ((panel.drawn && panel.drawn.sql) || []).join(";\n\n");
  const copy = make("button", { type: "button", onclick: () => copied(copy, sql) }, "Copy SQL");
  const dialog = make(
    "dialog",
    { class: "inspect-dialog", "aria-label": `Inspect ${panel.model.title}` },
    make(
      "header",
      {},
      make("h2", {}, panel.title.textContent),
      copy,
      make("a", { class: "button", href: `${prefix()}${panel.path}/csv?${panel.page.parameters()}`, download: true }, "Download CSV"),
      make("button", { type: "button", onclick: () => dialog.close(), "aria-label": "Close" }, "✕"),
    ),
    make("p", { class: "about" }, panel.model.description || ""),
    panel.drawn && panel.drawn.interval ? make("p", { class: "about" }, `Buckets of ${panel.drawn.interval} s, where it is over time.`) : null,
    make("pre", { tabindex: "0" }, sql || "Nothing was asked yet."),
    rows,
  );
  dialog.addEventListener("close", () => dialog.remove());
  dialog.addEventListener("click", (event) => event.target === dialog && dialog.close());
  document.body.append(dialog);
  dialog.showModal();
  try {
    table(rows, await ask(`${panel.path}/rows`, panel.page.parameters()));
  } catch (error) {
    rows.replaceChildren(make("p", { class: "placeholder", role: "alert" }, error.message));
  }
}

async function copied(button, sql) {
  try {
    await navigator.clipboard.writeText(sql);
    button.textContent = "Copied";
  } catch {
    button.textContent = "Select it below";
  }
}
