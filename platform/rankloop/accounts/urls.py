"""Addresses of signing in and out, and of one's account."""

from django.urls import path

from rankloop.accounts import views

urlpatterns = [
    path("sign-in/", views.SignInView.as_view(), name="sign-in"),
    path("sign-out/", views.sign_out, name="sign-out"),
    path("account/", views.account, name="account"),
    path("account/password/", views.change_password, name="change-password"),
    path("account/tokens/<int:token_id>/revoke/", views.revoke, name="revoke-token"),
]
