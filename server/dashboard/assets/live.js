"use strict";
// What the page does by itself: it draws the charts of a section, tells how old its data are, and says so when no more
// come. A server that is dead cannot say that it is.
const page = (() => {
  const SILENCE = 15; // seconds without a beat from the server, which sends one every five
  const OPENING = 5; // seconds until a page that opens is called lost
  const root = document.documentElement;
  let feed = null;
  let behind = 0; // seconds that this machine's clock is behind the server's
  let beat = 0;

  const seconds = () => Date.now() / 1000;
  let met = seconds() + OPENING; // when the connection was there first, or should have been
  const ago = (age) => {
    if (age < 1) return "just now";
    if (age < 60) return `${Math.floor(age)} s ago`;
    if (age < 3600) return `${Math.floor(age / 60)} min ago`;
    if (age < 86400) return `${Math.floor(age / 3600)} h ${Math.floor((age % 3600) / 60)} min ago`;
    return `${Math.floor(age / 86400)} days ago`;
  };
  const clock = (time) => new Date(time * 1000).toLocaleString("sv"); // 2026-11-26 18:38:53
  const set = (element, text) => element && element.textContent !== text && (element.textContent = text);

  const state = () => {
    if (window.socket?.connected) met = Math.min(met, seconds());
    if ((!window.socket?.connected && seconds() > met) || seconds() - beat > SILENCE) {
      const since = `What is shown is as it was at ${clock(beat)}, and may be out of date.`;
      return ["lost", `Connection lost. ${since} This page tries again by itself; see whether fednotes dashboard still runs.`];
    }
    if (feed.problem) return ["problem", `No news. ${feed.problem}`];
    if (feed.still) return ["still", feed.still];
    if (feed.heard && seconds() + behind - feed.heard > feed.stale)
      return ["old", "No news for long: what is shown may be out of date."];
    return ["live", "Live."];
  };
  let heeds = false;
  const tick = () => {
    if (!feed) return;
    if (window.socket && !heeds) {
      heeds = true;
      for (const change of ["connect", "disconnect"]) window.socket.on(change, tick);
    }
    const [name, words] = state();
    root.dataset.feed = name;
    set(document.querySelector(".feed .said"), words);
    set(document.querySelector(".feed .age"), feed.heard ? `Last news ${ago(seconds() + behind - feed.heard)}.` : "");
    for (const time of document.querySelectorAll("time[data-ago]"))
      set(time, ago(Math.max(0, seconds() + behind - Date.parse(time.dateTime) / 1000)));
  };
  const news = (given) => {
    feed = given;
    behind = given.checked - seconds();
    beat = seconds();
    tick();
  };
  const drawn = (section) => {
    for (const data of section.querySelectorAll("script.figures")) {
      if (data.drawn === data.textContent) continue;
      data.drawn = data.textContent;
      charts.draw(JSON.parse(data.textContent));
    }
    charts.forget();
    tick();
  };

  // A person who is there keeps the session; a page that lies open does not.
  const bar = document.getElementsByClassName("bar");
  let told = seconds();
  const here = () => {
    if (!bar[0]?.dataset.idle || seconds() - told < Math.min(60, bar[0].dataset.idle / 4)) return;
    told = seconds();
    fetch("/session", { method: "POST" }).catch(() => {});
  };
  for (const sign of ["pointerdown", "keydown", "wheel", "touchmove"]) addEventListener(sign, here, { passive: true });
  // Whether the session has ended, where the server has closed the connection.
  const ask = async () => {
    if (!feed || window.socket?.connected || !bar[0]?.dataset.idle) return;
    const answer = await fetch("/session").catch(() => null);
    if (answer?.status === 401) location.assign(`/login?next=${encodeURIComponent(location.pathname + location.search)}`);
  };
  setInterval(tick, 1000);
  setInterval(ask, 2000);
  return { news, drawn };
})();
