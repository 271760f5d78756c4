// Before the first paint: the theme, so that a dark wall never flashes white.
(() => {
  const asked = new URLSearchParams(location.search).get("theme");
  let kept = null;
  try {
    kept = localStorage.getItem("board-theme");
  } catch {
    kept = null; // storage may be forbidden; then the system decides
  }
  const system = matchMedia("(prefers-color-scheme: light)").matches ? "light" : "dark";
  const theme = ["dark", "light"].find((one) => one === asked) || kept || system;
  document.documentElement.dataset.theme = theme;
  if (new URLSearchParams(location.search).has("kiosk")) document.documentElement.dataset.kiosk = "";
})();
