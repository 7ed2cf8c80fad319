// What belongs to this tab: the token, which is never kept longer, and what people prefer to see.

const TOKEN = "ploopd.token";
const THEME = "ploopd.theme";

/// Takes the token out of the address, so that it is not left in the history.
export function takeTokenFromAddress() {
  const match = /^#token=(.+)$/.exec(location.hash);
  if (!match) return;
  setToken(decodeURIComponent(match[1]));
  history.replaceState(null, "", location.pathname + "#/overview");
}

export const token = () => sessionStorage.getItem(TOKEN) ?? "";

export function setToken(text) {
  if (text) sessionStorage.setItem(TOKEN, text);
  else sessionStorage.removeItem(TOKEN);
}

/// auto, light or dark.
export const theme = () => localStorage.getItem(THEME) ?? "auto";

export function setTheme(name) {
  localStorage.setItem(THEME, name);
  showTheme();
}

export function showTheme() {
  if (theme() === "auto") delete document.documentElement.dataset.theme;
  else document.documentElement.dataset.theme = theme();
}
