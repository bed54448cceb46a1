"""Signing in and out, and one's own account."""

from typing import Any

from django.contrib import messages
from django.contrib.auth import views as auth_views
from django.contrib.auth.decorators import login_required
from django.http import Http404, HttpRequest, HttpResponse
from django.shortcuts import redirect, render
from django.urls import reverse_lazy
from django.utils.decorators import method_decorator
from django.views.decorators.cache import never_cache
from django.views.decorators.http import require_POST

from rankloop.accounts.forms import SignInForm, TokenForm
from rankloop.accounts.services import open_token, revoke_token
from rankloop.accounts.throttle import WINDOW, client_address, is_throttled, note_failure


class SignInView(auth_views.LoginView):
    """Django's sign-in, throttled for each pair of username and address."""

    template_name = "accounts/sign_in.html"
    authentication_form = SignInForm
    redirect_authenticated_user = True

    def post(self, request: HttpRequest, *args: Any, **kwargs: Any) -> HttpResponse:
        who = {"username": request.POST.get("username", ""), "address": client_address(request)}
        if is_throttled(**who):
            return self._refuse(request)
        form = self.get_form()
        if form.is_valid():
            return self.form_valid(form)
        note_failure(**who)
        return self.form_invalid(form)

    def _refuse(self, request: HttpRequest) -> HttpResponse:
        minutes = int(WINDOW.total_seconds() // 60)
        refused = (
            "Too many failed attempts for this account from where you are. "
            f"Wait up to {minutes} minutes, or ask an admin to set a new password."
        )
        # Not the posted form: validating it would try the password after all.
        form = self.authentication_form(request)
        context = self.get_context_data(form=form, refused=refused)
        response = self.render_to_response(context, status=429)
        response.headers["Retry-After"] = "60"
        return response


class ChangePasswordView(auth_views.PasswordChangeView):
    template_name = "accounts/password.html"
    success_url = reverse_lazy("account")

    def form_valid(self, form: Any) -> HttpResponse:
        messages.success(self.request, "Your password is changed. Other browsers of yours are signed out.")
        return super().form_valid(form)


sign_out = auth_views.LogoutView.as_view()
change_password = method_decorator(never_cache, name="dispatch")(ChangePasswordView).as_view()


@login_required
@never_cache
def account(request: HttpRequest) -> HttpResponse:
    """One's own tokens; POST makes one, which this page alone shows, once."""
    form = TokenForm(request.POST or None)
    made = None
    if request.method == "POST" and form.is_valid():
        made = open_token(user=request.user, name=form.cleaned_data["name"])
        form = TokenForm()
    tokens = request.user.api_tokens.order_by("-created_at")
    return render(request, "accounts/account.html", {"form": form, "tokens": tokens, "made": made})


@login_required
@require_POST
def revoke(request: HttpRequest, token_id: int) -> HttpResponse:
    """Revoke one of one's own tokens."""
    if not revoke_token(user=request.user, token_id=token_id):
        raise Http404("There is no such token of yours to revoke.")
    messages.success(request, "The token is revoked. Programs that used it can't sign in any more.")
    return redirect("account")
