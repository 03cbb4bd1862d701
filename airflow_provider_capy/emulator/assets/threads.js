// The list of threads, newest first.
import { ago, element, everySecond, link, pullLabels, stateLabels, taskLabels } from "./common.js";

const SHOWN = 200;

function row(thread, now) {
  const page = `/project/${encodeURIComponent(thread.project_id)}/captain/${thread.id}`;
  const stop = thread.stops.length ? `${ago(now - thread.stops.at(-1))} ago` : "";
  return element("tr", [
    element("td", [link(thread.title || "untitled", page), element("span", thread.id, { class: "id" })], { class: "title" }),
    element("td", thread.project_id),
    element("td", stateLabels(thread)),
    element("td", taskLabels(thread)),
    element("td", pullLabels(thread)),
    element("td", stop, { class: "number" }),
    element("td", ago(now - thread.created), { class: "number" }),
  ]);
}

everySecond(async () => {
  const answer = await (await fetch(`/_emulator/threads?limit=${SHOWN}`)).json();
  const health = await (await fetch("/_emulator/health")).json();
  const some = answer.total > 0;
  document.getElementById("table").hidden = !some;
  document.getElementById("empty").hidden = some;
  document.getElementById("rows").replaceChildren(...answer.items.map((thread) => row(thread, answer.now)));
  const shown = answer.total > SHOWN ? `, the newest ${SHOWN} shown` : "";
  document.getElementById("summary").textContent =
    `${answer.total} ${answer.total === 1 ? "thread" : "threads"}${shown} · speed ${health.speed}`;
});
