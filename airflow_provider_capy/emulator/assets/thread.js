// One thread, or one of its pull requests.
import { ago, element, everySecond, label, pullLabels, pullLink, stateLabels, taskLabels } from "./common.js";

const { thread: id, pull: number } = document.querySelector("main").dataset;
const at = (name) => document.getElementById(name);
const time = (seconds, now) => `${new Date(seconds * 1000).toISOString()}, ${ago(now - seconds)} ago`;

for (const action of ["unblock", "archive"]) {
  at(action).onclick = () => fetch(`/_emulator/threads/${id}/${action}`, { method: "POST" });
}

function facts(rows) {
  at("facts").replaceChildren(
    ...rows.filter(([, value]) => value.length).flatMap(([name, value]) => [element("dt", name), element("dd", value)]),
  );
}

function showThread(thread) {
  at("title").textContent = document.title = thread.title || "untitled";
  at("state").replaceChildren(stateLabels(thread));
  at("unblock").hidden = thread.run_state !== "blocked" || thread.status === "archived";
  at("archive").hidden = thread.status === "archived";
  at("prompt-card").hidden = false;
  at("prompt").textContent = thread.prompt;
  facts([
    ["Thread", [element("span", thread.id, { class: "id" })]],
    ["Project", thread.project_id],
    ["Started", `${time(thread.created, thread.now)}, from ${thread.origin}, by ${thread.author_email}`],
    ["Life", thread.life],
    ["Since", time(thread.since, thread.now)],
    ["Tasks", thread.tasks.length ? [taskLabels(thread)] : []],
    ["Pull requests", thread.pull_requests.length ? [pullLabels(thread)] : []],
    ["Stop asked for", thread.stops.map((stop) => element("div", time(stop, thread.now)))],
  ]);
}

function showPull(thread, pull) {
  at("title").textContent = document.title = `#${pull.number} ${thread.title}`;
  at("state").replaceChildren(label(pull.draft ? "draft" : pull.state));
  const page = `/project/${encodeURIComponent(thread.project_id)}/captain/${thread.id}`;
  facts([
    ["Repository", pull.repoFullName],
    ["Branches", [element("code", pull.headRef), " into ", element("code", pull.baseRef)]],
    ["Thread", [element("a", thread.title || thread.id, { href: page })]],
    ["Others", thread.pull_requests.filter((other) => other.number !== pull.number).flatMap((other) => [pullLink(other), " "])],
  ]);
}

everySecond(async () => {
  const answer = await fetch(`/_emulator/threads/${id}`);
  const thread = answer.ok ? await answer.json() : null;
  const pull = thread?.pull_requests.find((item) => String(item.number) === number);
  if (!thread || (number && !pull)) {
    at("title").textContent = number ? "No such pull request" : "No such thread";
    facts([["Asked for", number || decodeURIComponent(location.pathname.split("/").at(-1))]]);
  } else if (pull) {
    showPull(thread, pull);
  } else {
    showThread(thread);
  }
});
