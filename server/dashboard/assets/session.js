"use strict";
// The session of whoever looks on. A person who is there keeps it; a page that lies open does not. Before it ends the
// page says so, and when it has ended the page leads to the login. Pages share a session, so the server is asked.
(() => {
  const bar = document.querySelector("header.bar[data-idle]");
  if (!bar) return; // there is no password, and so no session
  const idle = Number(bar.dataset.idle);
  const WARNING = Math.min(60, 0.75 * idle); // seconds before the end
  const asked = document.getElementById("ending");
  const [words, button] = [asked.querySelector("p"), asked.querySelector("button")];

  const seconds = () => Date.now() / 1000;
  let told = seconds(); // when the server last heard that a person is there
  let end = seconds() + idle; // when the session ends, as far as this page knows
  let lasts = true; // whether a sign of a person makes it last
  let before = null; // what had the focus

  const login = () => location.assign(`/login?next=${encodeURIComponent(location.pathname + location.search)}`);
  const say = () => {
    const left = Math.max(0, Math.ceil(end - seconds()));
    words.textContent = `You will be logged out in ${left} s${lasts ? "" : ": no session lasts longer"}.`;
    button.textContent = lasts ? "Stay" : "Log in again";
    if (!asked.hidden) return;
    before = document.activeElement;
    asked.hidden = false;
    button.focus({ preventScroll: true });
  };
  const hide = () => {
    if (asked.hidden) return;
    asked.hidden = true;
    if (before?.isConnected) before.focus({ preventScroll: true });
  };
  const ask = async (method) => {
    const answer = await fetch("/session", { method }).catch(() => null);
    if (answer?.status === 401) return login();
    if (!answer?.ok) return; // the dashboard is gone, which live.js says
    const found = await answer.json();
    end = seconds() + found.left;
    lasts = found.lasts;
    (found.left > WARNING ? hide : say)();
  };
  const here = () => {
    if (asked.hidden && seconds() - told < Math.min(60, idle / 8)) return;
    told = seconds();
    ask("POST");
  };
  for (const sign of ["pointerdown", "keydown", "wheel", "touchmove"]) addEventListener(sign, here, { passive: true });
  button.addEventListener("click", () => (lasts ? here() : login()));

  let ticks = 0;
  setInterval(() => {
    ticks += 1;
    const closed = window.socket && !window.socket.connected; // by the server, where the session has ended
    const near = end - seconds() <= WARNING;
    if ((closed || near) && (asked.hidden || ticks % 2 === 0)) ask("GET"); // another page may have kept it
    else if (near) say();
  }, 1000);
})();
