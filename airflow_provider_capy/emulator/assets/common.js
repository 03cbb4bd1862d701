// What both pages need: every text goes in as text, never as markup.

const TONES = {
  queued: "grey", running: "blue", waiting: "violet", blocked: "amber", ready: "green", archived: "grey",
  backlog: "grey", in_progress: "blue", needs_review: "violet", completed: "green", error: "red",
  open: "green", draft: "grey", merged: "violet", closed: "violet",
};

export function element(name, content = [], attributes = {}) {
  const made = document.createElement(name);
  for (const [key, value] of Object.entries(attributes)) made.setAttribute(key, value);
  made.append(...[content].flat());
  return made;
}

export const label = (text, tone = TONES[text] ?? "pink") =>
  element("span", text.replaceAll("_", " "), { class: `label ${tone}` });

export const link = (text, href) => element("a", text, { href });

export const chips = (content) => element("span", content, { class: "chips" });

export function ago(seconds) {
  const whole = Math.max(0, Math.round(seconds));
  if (whole < 60) return `${whole} s`;
  return whole < 3600 ? `${Math.floor(whole / 60)} min` : `${Math.floor(whole / 3600)} h`;
}

export function stateLabels(thread) {
  const archived = thread.status === "archived" && thread.run_state !== "archived";
  return chips([
    label(thread.run_state),
    ...(archived ? [label("archived")] : []),
    ...thread.waiting_on.map((reason) => label(`on ${reason}`, "grey")),
    ...thread.blocked_on.map((reason) => label(`on ${reason}`, "amber")),
    ...(thread.pending_wakeups ? [label(`${thread.pending_wakeups} wake-up due`, "grey")] : []),
  ]);
}

export const pullLink = (pull) => link(`#${pull.number}`, new URL(pull.url).pathname);

export const taskLabels = (thread) => chips(thread.tasks.map((status) => label(status)));

export const pullLabels = (thread) =>
  chips(
    thread.pull_requests.map((pull) =>
      element("span", [label(pull.draft ? "draft" : pull.state), pullLink(pull)], { class: "pair" }),
    ),
  );

export function everySecond(show) {
  const live = document.getElementById("live");
  const turn = async () => {
    try {
      await show();
      live.textContent = "live";
      live.classList.remove("lost");
    } catch {
      live.textContent = "the emulator does not answer";
      live.classList.add("lost");
    }
    setTimeout(turn, 1000);
  };
  turn();
}
